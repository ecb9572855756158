//! Stores that break the contract, each in one way: the suite finds each of them, by the rule that
//! it breaks.
//!
//! An id with a slash cannot be tried: [`ContainerId`] refuses it before a store sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::catch_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use reaper_spec::ContainerId;
use reaper_state::{
    Error, Record, Revision, StateStore, VersionedRecord,
    conformance::{RULES, Subject},
};

/// In which way a store is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Keeps what it acknowledged for itself until it is dropped.
    ForgetsAfterCrash,
    /// Writes what it acknowledged with its next call.
    IsNotDurableWhenItReturns,
    /// Answers again what it has read once.
    ReturnsStaleRecords,
    /// Compares the revision, and then writes whatever has come between.
    LosesConcurrentUpdates,
    /// Does not look at the revision.
    IgnoresRevisions,
    /// Gives an id that was used before the revisions that it had then.
    ReusesRevisions,
    /// Goes on listing what was deleted.
    ListsWhatWasRemoved,
    /// Lists the last id first.
    ListsUnsorted,
    /// Takes ids that differ in their case for the same.
    IgnoresCaseOfIds,
    /// Replaces a record that is there.
    CreatesOverExisting,
    /// Makes a record that is not there.
    UpdatesMissing,
    /// Answers with an empty record where there is none.
    InventsRecords,
    /// Lets readers see one changed field before the others.
    TearsRecords,
    /// Stores at most 64 KiB of each annotation.
    CutsLargeRecords,
    /// Reads a record of a later version as an empty one.
    ReadsNewerAsEmpty,
    /// Leaves unreadable records out of the list.
    HidesNewerRecords,
    /// Writes over a record that only a later version reads.
    OverwritesNewerRecords,
    /// Keeps the records of all roots in one place.
    MixesTwoRoots,
}

use Fault::*;

/// Each fault, and the rule that is to find it.
const FAULTS: &[(Fault, &str)] = &[
    (ForgetsAfterCrash, "acknowledged_change_outlives_its_writer"),
    (
        IsNotDurableWhenItReturns,
        "acknowledged_change_outlives_its_writer",
    ),
    (ReturnsStaleRecords, "another_handle_sees_every_change"),
    (
        LosesConcurrentUpdates,
        "one_of_many_updates_of_a_revision_wins",
    ),
    (
        IgnoresRevisions,
        "an_update_of_an_old_revision_is_a_conflict",
    ),
    (ReusesRevisions, "revisions_are_never_reused"),
    (
        ListsWhatWasRemoved,
        "deleted_container_is_missing_and_its_id_free",
    ),
    (ListsUnsorted, "the_list_is_sorted_and_complete"),
    (IgnoresCaseOfIds, "containers_do_not_touch_each_other"),
    (CreatesOverExisting, "create_with_existing_id_is_refused"),
    (UpdatesMissing, "a_new_store_is_empty"),
    (InventsRecords, "a_new_store_is_empty"),
    (TearsRecords, "readers_see_whole_records_in_order"),
    (CutsLargeRecords, "a_large_record_is_kept"),
    (
        ReadsNewerAsEmpty,
        "newer_record_is_named_kept_and_hides_no_other",
    ),
    (
        HidesNewerRecords,
        "newer_record_is_named_kept_and_hides_no_other",
    ),
    (
        OverwritesNewerRecords,
        "newer_record_is_named_kept_and_hides_no_other",
    ),
    (MixesTwoRoots, "stores_of_two_roots_are_separate"),
];

/// What is stored.
#[derive(Clone, Default)]
struct Stored {
    records: BTreeMap<ContainerId, VersionedRecord>,
    /// Those whose record only a later version reads.
    newer: BTreeSet<ContainerId>,
    removed: Vec<ContainerId>,
    last: u128,
}

type Medium = Arc<Mutex<Stored>>;

/// A handle of a store that is right but for its fault.
struct Mutant {
    fault: Option<Fault>,
    medium: Medium,
    /// What this handle has acknowledged and not written.
    unwritten: Mutex<Option<Stored>>,
    read: Mutex<BTreeMap<ContainerId, VersionedRecord>>,
}

impl Mutant {
    fn new(fault: Option<Fault>, medium: &Medium) -> Self {
        Self {
            fault,
            medium: Arc::clone(medium),
            unwritten: Mutex::default(),
            read: Mutex::default(),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Stored) -> T) -> T {
        let mut medium = guard(&self.medium);
        let mut unwritten = guard(&self.unwritten);
        if self.is(IsNotDurableWhenItReturns) {
            if let Some(last) = unwritten.take() {
                *medium = last;
            }
            act(unwritten.insert(medium.clone()))
        } else if self.is(ForgetsAfterCrash) {
            act(unwritten.get_or_insert_with(|| medium.clone()))
        } else {
            act(&mut medium)
        }
    }

    /// The id as the store keeps it.
    fn key(&self, id: &ContainerId) -> ContainerId {
        if self.is(IgnoresCaseOfIds) {
            ContainerId::new(id.as_str().to_lowercase()).expect("an id")
        } else {
            id.clone()
        }
    }

    fn put(&self, stored: &mut Stored, record: &Record) -> Revision {
        let key = self.key(&record.id);
        let number = if self.is(ReusesRevisions) {
            let last = stored.records.get(&key);
            last.map_or(0, |last| last.revision.number()) + 1
        } else {
            stored.last += 1;
            stored.last
        };
        let mut record = record.clone();
        if self.is(CutsLargeRecords) {
            for value in record.annotations.values_mut() {
                value.truncate(64 << 10);
            }
        }
        let revision = Revision::from_number(number);
        let versioned = VersionedRecord::new(record, revision.clone());
        stored.newer.remove(&key);
        stored.records.insert(key, versioned);
        revision
    }

    fn check_readable(&self, stored: &Stored, id: &ContainerId) -> Result<(), Error> {
        let newer = stored.newer.contains(id);
        if !newer || self.is(ReadsNewerAsEmpty) {
            return Ok(());
        }
        Err(Error::Newer {
            id: id.clone(),
            path: "memory".into(),
            found: 99,
            known: 1,
        })
    }
}

impl Drop for Mutant {
    fn drop(&mut self) {
        if let Some(unwritten) = guard(&self.unwritten).take() {
            *guard(&self.medium) = unwritten;
        }
    }
}

impl StateStore for Mutant {
    fn create(&self, record: &Record) -> Result<Revision, Error> {
        self.with(|stored| {
            let taken = stored.records.contains_key(&self.key(&record.id));
            if taken && !self.is(CreatesOverExisting) {
                return Err(Error::AlreadyExists {
                    id: record.id.clone(),
                });
            }
            Ok(self.put(stored, record))
        })
    }

    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
        if let Some(read) = guard(&self.read).get(id) {
            return Ok(read.clone());
        }
        let found = self.with(|stored| {
            self.check_readable(stored, id)?;
            let found = stored.records.get(&self.key(id)).cloned();
            Ok(found.filter(|_| !stored.newer.contains(id)))
        })?;
        let found = match found {
            Some(found) => found,
            None if self.is(InventsRecords) || self.is(ReadsNewerAsEmpty) => VersionedRecord::new(
                Record::new(id.clone(), "/".into()),
                Revision::from_number(0),
            ),
            None => return Err(Error::NotFound { id: id.clone() }),
        };
        if self.is(ReturnsStaleRecords) {
            guard(&self.read).insert(id.clone(), found.clone());
        }
        Ok(found)
    }

    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        guard(&self.read).remove(&record.id);
        let id = &record.id;
        let check = |stored: &mut Stored| {
            if !self.is(OverwritesNewerRecords) {
                self.check_readable(stored, id)?;
            }
            match stored.records.get(&self.key(id)) {
                None if !self.is(UpdatesMissing) => Err(Error::NotFound { id: id.clone() }),
                Some(now) if now.revision != *expected && !self.is(IgnoresRevisions) => {
                    Err(Error::Conflict {
                        id: id.clone(),
                        actual: now.record.status,
                    })
                }
                _ => Ok(()),
            }
        };
        if self.is(LosesConcurrentUpdates) {
            self.with(check)?;
            thread::sleep(WIDE);
            return Ok(self.with(|stored| self.put(stored, record)));
        }
        if self.is(TearsRecords) {
            self.with(|stored| {
                check(stored)?;
                let torn = stored.records.get_mut(id).expect("it was looked at");
                let count = torn.record.annotations.get_mut("count");
                count
                    .into_iter()
                    .zip(record.annotations.get("count"))
                    .for_each(|(old, new)| {
                        old.clone_from(new);
                    });
                Ok(())
            })?;
            thread::sleep(WIDE);
            return Ok(self.with(|stored| self.put(stored, record)));
        }
        self.with(|stored| check(stored).map(|()| self.put(stored, record)))
    }

    fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        guard(&self.read).remove(id);
        self.with(|stored| {
            let key = self.key(id);
            stored.newer.remove(&key);
            if stored.records.remove(&key).is_none() {
                return Err(Error::NotFound { id: id.clone() });
            }
            stored.removed.push(key);
            Ok(())
        })
    }

    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        self.with(|stored| {
            let mut ids: Vec<_> = stored.records.keys().cloned().collect();
            if self.is(ListsWhatWasRemoved) {
                ids.extend(stored.removed.iter().cloned());
            }
            if self.is(ListsUnsorted) {
                ids.reverse();
            }
            if self.is(HidesNewerRecords) {
                ids.retain(|id| !stored.newer.contains(id));
            }
            Ok(ids)
        })
    }
}

/// Long enough for another thread to come between, on any machine with the suite's threads.
const WIDE: Duration = Duration::from_millis(2);

/// The suite's threads panic with a lock held when they find the fault.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn subject(fault: Option<Fault>) -> Subject {
    let medium = Medium::default();
    let (newer, neighbor) = (
        Arc::clone(&medium),
        match fault {
            Some(MixesTwoRoots) => Arc::clone(&medium),
            _ => Medium::default(),
        },
    );
    Subject::shared(move || Mutant::new(fault, &medium))
        .with_newer(move |id| {
            guard(&newer).newer.insert(id.clone());
        })
        .with_neighbor(move || Mutant::new(fault, &neighbor))
}

#[test]
fn store_without_fault_keeps_every_rule() {
    for rule in RULES {
        rule.check(&subject(None));
    }
}

#[test]
fn each_faulty_store_is_found_by_the_rule_that_it_breaks() {
    for &(fault, name) in FAULTS {
        let rule = RULES.iter().find(|rule| rule.name == name);
        let rule = rule.unwrap_or_else(|| panic!("no rule {name}"));
        let broken = catch_unwind(|| rule.check(&subject(Some(fault))));
        let said = match broken {
            Ok(()) => panic!("{name} does not find a store that {fault:?}"),
            Err(cause) => *cause.downcast::<String>().expect("a message"),
        };
        assert!(
            said.starts_with(&format!("the rule {name} is broken: ")),
            "{said}"
        );
    }
}
