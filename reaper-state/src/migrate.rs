//! Moving records from one store to another.

use reaper_spec::{ContainerId, Status};

use crate::{Error, Record, StateStore, VersionedRecord};

/// What [`migrate`] has done with each container of the source.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Migration {
    /// Copied, or brought up to date, and read back.
    pub copied: Vec<ContainerId>,
    /// Already there, and the same or further in its life.
    pub kept: Vec<ContainerId>,
    /// Not copied, and why: its record is unreadable, or the target has another of this id
    /// ([`Error::AlreadyExists`]).
    pub failed: Vec<(ContainerId, Error)>,
}

/// Copies every record of `from` to `to`, while containers run and others change both stores.
///
/// Monitors and workloads know no store, so nothing is stopped. A container that changes while it
/// is copied is copied again, one that is deleted meanwhile is not kept. What the target has is
/// never taken back to an earlier part of its life: only a record of the same container (the same
/// time of creation) whose status comes later replaces one. So it can be called again.
///
/// To move a node: call it; let new processes use the target; once the shims that still use the
/// source have ended, call it again for what they have written since, look at
/// [`failed`](Migration::failed), and delete the source. It is never changed here.
///
/// # Errors
/// A store as a whole cannot be used. What concerns one container is in the result.
pub fn migrate(from: &dyn StateStore, to: &dyn StateStore) -> Result<Migration, Error> {
    let mut migration = Migration::default();
    for id in from.list()? {
        match copy(from, to, &id) {
            Ok(Outcome::Copied) => migration.copied.push(id),
            Ok(Outcome::Kept) => migration.kept.push(id),
            Ok(Outcome::Gone) => {}
            Err(error @ (Error::Io { .. } | Error::NewerStore { .. })) => return Err(error),
            Err(error) => migration.failed.push((id, error)),
        }
    }
    Ok(migration)
}

enum Outcome {
    Copied,
    Kept,
    Gone,
}

fn copy(from: &dyn StateStore, to: &dyn StateStore, id: &ContainerId) -> Result<Outcome, Error> {
    let mut copied = None;
    // Each turn follows a change by another program, and a container changes its status a few
    // times only.
    loop {
        let Some(source) = read(from, id)? else {
            if copied.is_some() {
                discard(to, id)?;
            }
            return Ok(Outcome::Gone);
        };
        let written = match read(to, id)? {
            None => to.create(&source.record),
            Some(target) if target.record == source.record => {
                let outcome = if copied.is_some() {
                    Outcome::Copied
                } else {
                    Outcome::Kept
                };
                match read(from, id)? {
                    Some(now) if now.revision == source.revision => return Ok(outcome),
                    _ => continue,
                }
            }
            // Our own copy, and the source has changed since.
            Some(target) if copied.as_ref() == Some(&target.revision) => {
                to.update(&target.revision, &source.record)
            }
            Some(target) if is_behind(&target.record, &source.record)? => {
                to.update(&target.revision, &source.record)
            }
            Some(_) => return Ok(Outcome::Kept),
        };
        match written {
            Ok(revision) => copied = Some(revision),
            Err(Error::AlreadyExists { .. } | Error::Conflict { .. } | Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn read(store: &dyn StateStore, id: &ContainerId) -> Result<Option<VersionedRecord>, Error> {
    match store.get(id) {
        Ok(stored) => Ok(Some(stored)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn discard(store: &dyn StateStore, id: &ContainerId) -> Result<(), Error> {
    match store.delete(id) {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the target's record is an earlier one of the same container.
fn is_behind(target: &Record, source: &Record) -> Result<bool, Error> {
    let age = |status| match status {
        Status::Creating => 0,
        Status::Created => 1,
        Status::Running | Status::Paused => 2,
        _ => 3,
    };
    if target.created != source.created || target.bundle != source.bundle {
        Err(Error::AlreadyExists {
            id: source.id.clone(),
        })
    } else {
        Ok(age(target.status) < age(source.status))
    }
}
