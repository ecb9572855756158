//! How many containers there may be.
//!
//! The containers of a state root are counted and the new one is recorded under one lock, so that any number of
//! programs that create containers at the same time do not exceed a limit together.

use std::{fs::File, path::Path};

use reaper_spec::{ContainerId, ContainerLimit, ContainerType, CriAnnotations, Status};
use reaper_state::{Record, StateRoot, StateStore, VersionedRecord, durable, lock_exclusive};

use super::{
    base::Engine,
    error::{Error, Result},
};
use crate::{executor::Executor, procfs};

/// The annotation of the record of a container that counts although its bundle calls it the sandbox of a pod.
const COUNTED_ANNOTATION: &str = "reaper.engine/counted";

/// The containers that have not stopped, as far as their records say.
struct Counted {
    number: usize,
    /// Those of them that can have ended, which no program has waited for.
    in_doubt: Vec<ContainerId>,
}

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
        // Their ends are recorded now. What fails is still counted. Of all others the monitors are not asked:
        // each is another program's, and may not answer.
        for id in counted.in_doubt {
            let _ = self.state(&id).await;
        }
        match self.try_reserve(record, limit.most).await? {
            Ok(()) => Ok(()),
            Err(counted) => Err(Error::Policy(limit.refused(counted.number))),
        }
    }

    /// The same by what the store says. Without room it returns those that are counted.
    async fn try_reserve(&self, record: Record, most: usize) -> Result<Result<(), Counted>> {
        let root = self.root.clone();
        let reserved = self.stored(move |store| {
            let _lock = match lock(root.path()) {
                Ok(lock) => lock,
                Err(source) => return Ok(Err(source)),
            };
            match store.get(&record.id) {
                Err(reaper_state::Error::NotFound { .. }) => {}
                Err(error @ reaper_state::Error::Io { .. }) => return Err(error),
                _ => return Err(reaper_state::Error::AlreadyExists { id: record.id }),
            }
            let counted = counted(store, &root)?;
            if counted.number >= most {
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

/// Notes in the record of a container that it counts, whatever its bundle says of it.
pub(super) fn note_counted(record: &mut Record) {
    if is_sandbox(record) {
        let key = COUNTED_ANNOTATION.to_owned();
        record.annotations.insert(key, String::new());
    }
}

/// Whether this is the sandbox of a pod, which is no container that a pod has asked for.
fn is_sandbox(record: &Record) -> bool {
    let cri = CriAnnotations::from_annotations(&record.annotations);
    cri.container_type == Some(ContainerType::Sandbox)
        && !record.annotations.contains_key(COUNTED_ANNOTATION)
}

/// Locks the state root itself, which no store does, so that no file is left for the lock.
fn lock(root: &Path) -> std::io::Result<File> {
    durable::create_dir_all(root)?;
    let lock = File::open(root)?;
    lock_exclusive(&lock)?;
    Ok(lock)
}

/// Counts; a container whose record cannot be read may run.
fn counted<S: StateStore + ?Sized>(
    store: &S,
    root: &StateRoot,
) -> Result<Counted, reaper_state::Error> {
    let mut counted = Counted {
        number: 0,
        in_doubt: Vec::new(),
    };
    for id in store.list()? {
        match store.get(&id) {
            Ok(VersionedRecord { record, .. }) => {
                if record.status == Status::Stopped || is_sandbox(&record) {
                    continue;
                }
                counted.number += 1;
                if can_have_ended(&record, root) {
                    counted.in_doubt.push(id);
                }
            }
            Err(reaper_state::Error::NotFound { .. }) => {}
            Err(_) => counted.number += 1,
        }
    }
    Ok(counted)
}

/// Whether there is a sign of an end that the record does not have.
fn can_have_ended(record: &Record, root: &StateRoot) -> bool {
    root.container(&record.id).exit_file().exists()
        || !record.monitor.as_ref().is_some_and(procfs::is_alive)
}
