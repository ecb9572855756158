//! How an engine calls its store.

use std::sync::Arc;

use reaper_spec::{ContainerId, Timestamp};
use reaper_state::{Record, StateStore, VersionedRecord};

use super::{
    base::Engine,
    error::{Error, Result},
};

/// The annotation of the record of a container that is deleted while it is being created.
const DELETION_ANNOTATION: &str = "reaper.engine/deletion";

/// How far the deletion of a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    /// The record is there.
    Begun,
    /// It is not, or it is that of another container.
    Done,
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

    /// Says in the record that a container is deleted while it is being created, for its creator. Where that
    /// cannot be written the deletion goes on, and the creator has its executor's reason alone.
    pub(super) async fn mark_deletion(&self, id: &ContainerId, taken: Timestamp) {
        let mark = move |record: &mut Record| {
            if record.created == taken {
                let key = DELETION_ANNOTATION.to_owned();
                record.annotations.insert(key, String::new());
            }
        };
        if let Err(error) = self.change(id, mark).await {
            tracing::debug!("container {id} is not marked as deleted: {error}");
        }
    }

    /// Whether another call deletes the container whose id was taken at this time.
    pub(super) async fn deletion(&self, id: &ContainerId, taken: Timestamp) -> Option<Deletion> {
        match self.get(id).await {
            Ok(stored) if stored.record.created != taken => Some(Deletion::Done),
            Ok(stored) => {
                let marked = stored.record.annotations.contains_key(DELETION_ANNOTATION);
                marked.then_some(Deletion::Begun)
            }
            Err(Error::Store(reaper_state::Error::NotFound { .. })) => Some(Deletion::Done),
            Err(_) => None,
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
