//! Reading and changing the files in one container's folder.
//!
//! A change is staged, synced, renamed, and the folder synced, in this order: after a crash there
//! is the old record or the new one. The `pid` file is renamed just before the record, so a script
//! that sees a new record finds its pid.

use std::io;

use reaper_spec::ContainerId;

use super::error::corrupt;
use crate::{
    ContainerDir, Error, RECORD_VERSION, Record, Revision, VersionedRecord,
    folder::{Content, Folder},
    format::{self, FormatError},
};

pub(super) const STATE: &str = "state.json";
const PID: &str = "pid";
/// Written before it gets the name of one of the above. Fixed names: the lock leaves one writer,
/// and what a crash leaves behind is found without searching for it.
const STAGED_STATE: &str = ".state.json.new";
const STAGED_PID: &str = ".pid.new";
/// A deleted record until that is durable.
const DELETED: &str = ".state.json.deleted";

/// More than any record has.
const MAX_RECORD: usize = 16 << 20;

/// A container's folder. What changes something needs the lock.
pub(super) struct Container<'a> {
    id: &'a ContainerId,
    dir: ContainerDir,
    folder: Folder,
}

/// A container's folder, locked until it is dropped.
pub(super) struct Locked<'a>(Container<'a>);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.folder.unlock();
    }
}

impl<'a> Container<'a> {
    pub(super) fn new(id: &'a ContainerId, dir: ContainerDir, folder: Folder) -> Self {
        Self { id, dir, folder }
    }

    /// Waits for the lock.
    pub(super) fn lock(self) -> Result<Locked<'a>, Error> {
        self.folder
            .lock()
            .map_err(Error::io("lock", self.dir.path()))?;
        Ok(Locked(self))
    }

    /// Locks it; `None` if another process has it locked.
    pub(super) fn try_lock(self) -> io::Result<Option<Locked<'a>>> {
        Ok(self.folder.try_lock()?.then(|| Locked(self)))
    }

    /// The record, and the bytes that it was read from.
    pub(super) fn read(&self) -> Result<(VersionedRecord, Vec<u8>), Error> {
        let path = self.dir.state_file();
        let content = self
            .folder
            .read(STATE, MAX_RECORD)
            .map_err(Error::io("read", &path))?;
        let bytes = match content {
            Content::Missing => {
                return Err(Error::NotFound {
                    id: self.id.clone(),
                });
            }
            Content::Alien(reason) => return Err(corrupt(self.id, &self.dir, reason)),
            Content::Bytes(bytes) => bytes,
        };
        match format::decode(&bytes) {
            Ok(stored) if stored.record.id == *self.id => Ok((stored, bytes)),
            Ok(stored) => {
                let reason = format!("it is the record of {}", stored.record.id);
                Err(corrupt(self.id, &self.dir, &reason))
            }
            Err(FormatError::Newer { found }) => Err(Error::Newer {
                id: self.id.clone(),
                path,
                found,
                known: RECORD_VERSION,
            }),
            Err(error) => Err(corrupt(self.id, &self.dir, &error.to_string())),
        }
    }
}

impl Locked<'_> {
    /// Whether this still is the container's folder below `root`.
    pub(super) fn is_entry_of(&self, root: &Folder) -> Result<bool, Error> {
        let entry = self.0.folder.is_entry_of(root, self.0.id.as_str());
        entry.map_err(Error::io("look at", self.0.dir.path()))
    }

    /// Whether a creation or a deletion was killed here: a lock ends with its holder, so what is written
    /// under it is left over as soon as there is neither a record nor another holder.
    pub(super) fn was_interrupted(&self) -> io::Result<bool> {
        let has = |name| self.0.folder.kind_of(name).map(|kind| kind.is_some());
        Ok(!has(STATE)? && (has(STAGED_STATE)? || has(DELETED)?))
    }

    /// Makes the first record; `made` says that the caller has just made the folder.
    pub(super) fn create(&self, record: &Record, made: bool) -> Result<Revision, Error> {
        let taken = self
            .0
            .folder
            .kind_of(STATE)
            .map_err(Error::io("read", &self.0.dir.state_file()))?;
        if taken.is_some() {
            return Err(Error::AlreadyExists {
                id: self.0.id.clone(),
            });
        }
        if !made {
            self.0
                .folder
                .make_private()
                .map_err(Error::io("take over", self.0.dir.path()))?;
        }
        self.commit(record, None)
    }

    /// Replaces the record, if it is at `expected`.
    pub(super) fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        let (current, bytes) = self.0.read()?;
        if current.revision != *expected {
            let actual = current.record.status;
            return Err(Error::Conflict {
                id: self.0.id.clone(),
                actual,
            });
        }
        self.commit(record, Some((&current.record, &bytes)))
    }

    /// Replaces the record, or makes the first. The pid's file goes first: if a crash comes
    /// between them, the record still says that it must be written.
    fn commit(&self, record: &Record, old: Option<(&Record, &[u8])>) -> Result<Revision, Error> {
        let path = self.0.dir.state_file();
        let revision = Revision::unique().map_err(Error::io("write", &path))?;
        let cannot_encode = |reason| Error::Encode {
            id: self.0.id.clone(),
            reason,
        };
        let text =
            format::encode(record, &revision).map_err(|error| cannot_encode(error.to_string()))?;
        if text.len() > MAX_RECORD {
            return Err(cannot_encode(format!("it has {} bytes", text.len())));
        }
        let pid = |record: &Record| record.process.as_ref().map(|process| process.pid);
        let pids_change = old.is_none_or(|(old, _)| pid(old) != pid(record));
        let written = self
            .0
            .folder
            .stage(STAGED_STATE, text.as_bytes())
            .and_then(|()| {
                if pids_change {
                    self.put_pid(pid(record))?;
                }
                self.0.folder.rename(STAGED_STATE, STATE)?;
                self.0.folder.sync()
            });
        if let Err(error) = written {
            self.undo(old, pids_change.then(|| old.and_then(|(old, _)| pid(old))));
            return Err(Error::io("write", &path)(error));
        }
        Ok(revision)
    }

    fn put_pid(&self, pid: Option<u32>) -> io::Result<()> {
        match pid {
            Some(pid) => {
                self.0
                    .folder
                    .stage(STAGED_PID, format!("{pid}\n").as_bytes())?;
                self.0.folder.rename(STAGED_PID, PID)
            }
            None => self.0.folder.remove(PID),
        }
    }

    /// Goes back to the old record, as far as a failing medium lets one.
    fn undo(&self, old: Option<(&Record, &[u8])>, pid: Option<Option<u32>>) {
        let _ = self.0.folder.remove(STAGED_STATE);
        let _ = self.0.folder.remove(STAGED_PID);
        if let Some(pid) = pid {
            let _ = self.put_pid(pid);
        }
        let unchanged = match (self.0.folder.read(STATE, MAX_RECORD), old) {
            (Ok(Content::Bytes(now)), Some((_, old))) => now == old,
            (Ok(Content::Missing), None) => true,
            _ => false,
        };
        let undone = match old {
            _ if unchanged => Ok(()),
            Some((_, old)) => self
                .0
                .folder
                .stage(STAGED_STATE, old)
                .and_then(|()| self.0.folder.rename(STAGED_STATE, STATE)),
            None => self.0.folder.remove(STATE),
        };
        if let Err(error) = undone {
            tracing::error!(container = %self.0.id, %error, "a failed change could not be undone");
        }
    }

    /// Removes what the store has written. It is the renaming that counts: it can be undone. Without a
    /// record that is what a creation or a deletion has left that was killed.
    pub(super) fn delete(&self) -> Result<(), Error> {
        let path = self.0.dir.state_file();
        match self.0.folder.rename(STATE, DELETED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove_remains();
                return Err(Error::NotFound {
                    id: self.0.id.clone(),
                });
            }
            renamed => renamed.map_err(Error::io("remove", &path))?,
        }
        if let Err(error) = self.0.folder.sync() {
            let _ = self.0.folder.rename(DELETED, STATE);
            return Err(Error::io("remove", &path)(error));
        }
        self.remove_remains();
        Ok(())
    }

    /// Removes the files beside the record, which there is none any more.
    pub(super) fn remove_remains(&self) {
        for name in [DELETED, PID, STAGED_STATE, STAGED_PID] {
            if let Err(error) = self.0.folder.remove(name) {
                tracing::warn!(container = %self.0.id, name, %error, "a deleted container's file stays");
            }
        }
    }
}
