//! Records in memory.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use reaper_spec::ContainerId;

use crate::{Error, Record, Revision, StateStore, VersionedRecord};

/// Records in memory, gone with the value: for tests, and for programs whose containers don't
/// outlive them. What it acknowledges is as durable as its medium: not at all.
///
/// It is shared by reference or in an [`Arc`](std::sync::Arc).
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    stored: BTreeMap<ContainerId, VersionedRecord>,
    /// Counts on over deletions, so that no revision comes twice.
    last: u128,
}

impl Records {
    fn put(&mut self, record: &Record) -> Revision {
        self.last += 1;
        let revision = Revision::from_number(self.last);
        let stored = VersionedRecord {
            record: record.clone(),
            revision: revision.clone(),
        };
        self.stored.insert(record.id.clone(), stored);
        revision
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // Nothing in here panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryStore {
    fn create(&self, record: &Record) -> Result<Revision, Error> {
        let mut records = self.records();
        if records.stored.contains_key(&record.id) {
            return Err(Error::AlreadyExists {
                id: record.id.clone(),
            });
        }
        Ok(records.put(record))
    }

    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
        let stored = self.records().stored.get(id).cloned();
        stored.ok_or_else(|| Error::NotFound { id: id.clone() })
    }

    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        let mut records = self.records();
        match records.stored.get(&record.id) {
            None => Err(Error::NotFound {
                id: record.id.clone(),
            }),
            Some(current) if current.revision != *expected => Err(Error::Conflict {
                id: record.id.clone(),
                actual: current.record.status,
            }),
            Some(_) => Ok(records.put(record)),
        }
    }

    fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        let removed = self.records().stored.remove(id);
        removed
            .map(drop)
            .ok_or_else(|| Error::NotFound { id: id.clone() })
    }

    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        Ok(self.records().stored.keys().cloned().collect())
    }
}
