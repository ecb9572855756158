//! How many containers there may be.
//!
//! The containers of a state root are counted and the new one is recorded under one lock, so that any number of
//! programs that create containers at the same time do not exceed a limit together.

use std::{fs::File, path::Path};

use reaper_spec::{ContainerId, ContainerLimit, ContainerType, CriAnnotations, Status};
use reaper_state::{Record, StateStore, VersionedRecord, durable, lock_exclusive};

use super::{
    base::Engine,
    error::{Error, Result},
};
use crate::executor::Executor;

impl<E: Executor, S: StateStore + ?Sized + 'static> Engine<E, S> {
    /// Adds the record of a new container, if `limits` allow one more.
    pub(super) async fn reserve(&self, record: Record, limits: &[ContainerLimit]) -> Result<()> {
        let Some(limit) = limits.iter().min_by_key(|limit| limit.most).cloned() else {
            self.stored(move |store| store.create(&record)).await?;
            return Ok(());
        };
        let Err(counted) = self.try_reserve(record.clone(), limit.most).await? else {
            return Ok(());
        };
        // Of those whose end no program has waited for, it is recorded now. What fails is still counted.
        for id in counted {
            let _ = self.state(&id).await;
        }
        match self.try_reserve(record, limit.most).await? {
            Ok(()) => Ok(()),
            Err(counted) => Err(Error::Policy(limit.refused(counted.len()))),
        }
    }

    /// The same by what the store says. Without room it returns those that are counted.
    async fn try_reserve(
        &self,
        record: Record,
        most: usize,
    ) -> Result<Result<(), Vec<ContainerId>>> {
        let root = self.root.path().to_owned();
        let reserved = self.stored(move |store| {
            let _lock = match lock(&root) {
                Ok(lock) => lock,
                Err(source) => return Ok(Err(source)),
            };
            let counted = counted(store)?;
            if counted.len() >= most {
                return Ok(Ok(Err(counted)));
            }
            store.create(&record).map(|_| Ok(Ok(())))
        });
        reserved.await?.map_err(|source| Error::Folder {
            operation: "count the containers of",
            path: self.root.path().to_owned(),
            source,
        })
    }
}

/// Locks the state root itself, which no store does, so that no file is left for the lock.
fn lock(root: &Path) -> std::io::Result<File> {
    durable::create_dir_all(root)?;
    let lock = File::open(root)?;
    lock_exclusive(&lock)?;
    Ok(lock)
}

/// The containers that have not stopped, as far as their records say; one that cannot be read may run. The
/// sandboxes of pods are not containers that a pod has asked for.
fn counted<S: StateStore + ?Sized>(store: &S) -> Result<Vec<ContainerId>, reaper_state::Error> {
    let mut counted = Vec::new();
    for id in store.list()? {
        match store.get(&id) {
            Ok(VersionedRecord { record, .. }) => {
                let cri = CriAnnotations::from_annotations(&record.annotations);
                let is_sandbox = cri.container_type == Some(ContainerType::Sandbox);
                if record.status != Status::Stopped && !is_sandbox {
                    counted.push(id);
                }
            }
            Err(reaper_state::Error::NotFound { .. }) => {}
            Err(_) => counted.push(id),
        }
    }
    Ok(counted)
}
