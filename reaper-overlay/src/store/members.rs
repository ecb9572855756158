//! Who uses a scope: a marker and a lock for each member.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::paths::ScopePaths;
use crate::{
    contract::{Context, Error},
    linux::{
        files::remove_file,
        flock::{Lock, Mode, is_held},
    },
};

/// The ids of those who hold the scope now.
pub(crate) fn members(paths: &ScopePaths) -> Result<Vec<String>, Error> {
    let dir = paths.members();
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).context("list", dir),
    };
    for entry in entries {
        let entry = entry.context("list", &dir)?;
        if is_held(&entry.path())? {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether there may be members: those that were killed and are not cleaned up yet count, as what
/// they have started may still run.
pub(crate) fn may_have_members(paths: &ScopePaths) -> Result<bool, Error> {
    let dir = paths.members();
    match std::fs::read_dir(&dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("list", dir),
    }
}

/// The locks that all members of a scope share.
#[derive(Debug)]
pub(crate) struct MemberLocks {
    /// Of the directory of the layers, which lies where the layers do, so every process that could
    /// mount them sees it. Released first: who has the other one alone counts on it.
    _layers: Lock,
    /// Of those who see the same files in `live`.
    _shared: Lock,
}

impl MemberLocks {
    pub(crate) fn new(shared: Lock, layers: Lock) -> Self {
        Self {
            _layers: layers,
            _shared: shared,
        }
    }
}

/// One member of a scope. While it exists the scope can be neither reset nor removed.
#[derive(Debug)]
pub(crate) struct Membership {
    marker: PathBuf,
    table: PathBuf,
    _marker: Lock,
    _locks: MemberLocks,
}

impl Membership {
    /// Adds `id` to the members. `locks` were taken before the scope was looked for.
    pub(crate) fn take(paths: &ScopePaths, id: &str, locks: MemberLocks) -> Result<Self, Error> {
        let marker = paths.members().join(id);
        let lock = Lock::take(&marker, Mode::Shared)?;
        Ok(Self {
            marker,
            table: paths.layers().current().to_owned(),
            _marker: lock,
            _locks: locks,
        })
    }

    /// Its marker file.
    pub(crate) fn marker(&self) -> &Path {
        &self.marker
    }

    /// Removes the member from the list. The locks are held until it is dropped. Idempotent.
    pub(crate) fn leave(&self) -> Result<(), Error> {
        // When the scope was last used; nothing depends on it but its collection.
        let _ = File::open(&self.table).and_then(|table| table.set_modified(SystemTime::now()));
        remove_file(&self.marker)
    }
}
