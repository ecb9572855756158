//! How an engine calls its store.

use std::sync::Arc;

use reaper_spec::{ContainerId, Timestamp};
use reaper_state::{Record, StateStore, VersionedRecord};

use super::{
    base::Engine,
    error::{Error, Result},
};

/// What begins the names of the annotations that an [`Engine`] adds to records, and that it takes from no bundle.
pub const ENGINE_PREFIX: &str = "reaper.engine/";

/// The annotation of the record of a container that is deleted while it is being created.
const DELETION_ANNOTATION: &str = "reaper.engine/deletion";

/// Takes away that a container is deleted while it is being created.
pub(super) fn unmark_deletion(record: &mut Record) {
    record.annotations.remove(DELETION_ANNOTATION);
}

impl<E, S: StateStore + ?Sized + 'static> Engine<E, S> {
    /// Takes a container out of the store, if it is in there.
    pub(super) async fn forget(&self, id: &ContainerId) -> Result<()> {
        let gone = id.clone();
        match self.stored(move |store| store.delete(&gone)).await {
            Ok(()) | Err(reaper_state::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says in the record of a container that is being created, for its creator, whether another call deletes it.
    /// Where that cannot be written the deletion goes on, and the creator has its executor's reason alone.
    pub(super) async fn mark_deletion(&self, id: &ContainerId, taken: Timestamp, begun: bool) {
        let mark = move |record: &mut Record| match (record.created == taken, begun) {
            (true, true) => {
                let key = DELETION_ANNOTATION.to_owned();
                record.annotations.insert(key, String::new());
            }
            (true, false) => unmark_deletion(record),
            (false, _) => {}
        };
        if let Err(error) = self.change(id, mark).await {
            tracing::debug!("the deletion of container {id} is not noted: {error}");
        }
    }

    /// Whether another call deletes, or has deleted, the container whose id was taken at this time.
    pub(super) async fn is_deleted(&self, id: &ContainerId, taken: Timestamp) -> bool {
        match self.get(id).await {
            Ok(VersionedRecord { record, .. }) => {
                record.created != taken || record.annotations.contains_key(DELETION_ANNOTATION)
            }
            Err(Error::Store(reaper_state::Error::NotFound { .. })) => true,
            Err(_) => false,
        }
    }

    pub(super) async fn get(&self, id: &ContainerId) -> Result<VersionedRecord> {
        let id = id.clone();
        Ok(self.stored(move |store| store.get(&id)).await?)
    }

    /// Changes a record. If another program changes it at the same time, the change is made again.
    pub(super) async fn change(
        &self,
        id: &ContainerId,
        change: impl Fn(&mut Record) + Send + 'static,
    ) -> Result<Record> {
        let id = id.clone();
        Ok(self
            .stored(move |store| {
                loop {
                    let VersionedRecord {
                        mut record,
                        revision,
                        ..
                    } = store.get(&id)?;
                    let before = record.clone();
                    change(&mut record);
                    if record == before {
                        return Ok(record);
                    }
                    match store.update(&revision, &record) {
                        Err(reaper_state::Error::Conflict { .. }) => {}
                        updated => return updated.map(|_| record),
                    }
                }
            })
            .await?)
    }

    /// Calls the store, on a blocking thread if so configured.
    pub(super) async fn stored<T: Send + 'static>(
        &self,
        call: impl FnOnce(&S) -> Result<T, reaper_state::Error> + Send + 'static,
    ) -> Result<T, reaper_state::Error> {
        if !self.blocking {
            return call(&self.store);
        }
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || call(&store)).await {
            Ok(answer) => answer,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}
