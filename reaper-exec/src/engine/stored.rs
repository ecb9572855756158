//! How an engine calls its store.

use std::sync::Arc;

use reaper_spec::{ContainerId, Timestamp};
use reaper_state::{Record, StateStore, VersionedRecord};

use super::{
    base::Engine,
    error::{Error, Result},
};

impl<E, S: StateStore + ?Sized + 'static> Engine<E, S> {
    /// Takes a container out of the store, if it is in there.
    pub(super) async fn forget(&self, id: &ContainerId) -> Result<()> {
        let gone = id.clone();
        match self.stored(move |store| store.delete(&gone)).await {
            Ok(()) | Err(reaper_state::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the container whose id was taken at this time is no longer in the store.
    pub(super) async fn was_deleted(&self, id: &ContainerId, taken: Timestamp) -> bool {
        match self.get(id).await {
            Ok(stored) => stored.record.created != taken,
            Err(error) => matches!(error, Error::Store(reaper_state::Error::NotFound { .. })),
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
