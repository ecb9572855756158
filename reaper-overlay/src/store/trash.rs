//! Removing what may be large: put out of the way in one step, and then removed file by file.
//!
//! So no process ever finds half of a scope or waits for a removal with a lock held, and what a
//! killed process has not finished removing is removed by the next removal of anything.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    contract::{Context, Error},
    linux::files::{make_dir, remove_tree},
};

/// A directory that is out of the way and yet to be removed.
#[derive(Debug)]
#[must_use = "it is still on the disk"]
pub(crate) struct Trash {
    base: PathBuf,
    item: Option<PathBuf>,
}

impl Trash {
    /// Takes `path` out of its place below the base, where it may be missing.
    pub(crate) fn discard(base: &Path, path: &Path) -> Result<Self, Error> {
        let dir = folder(base);
        make_dir(&dir)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_nanos());
        let to = dir.join(format!("{}.{now}", std::process::id()));
        let item = match fs::rename(path, &to) {
            Ok(()) => Some(to),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("throw away", path),
        };
        Ok(Self {
            base: base.to_owned(),
            item,
        })
    }

    /// Removes it, and what killed processes did not get to remove.
    pub(crate) fn remove(self) -> Result<(), Error> {
        if let Some(item) = &self.item {
            // Another process may have taken it for one that is left. Then both remove it.
            let _lock = claim(item)?;
            remove_tree(item)?;
        }
        // The removal that the caller asked for has succeeded. `overlay ls` and `doctor` show what
        // is still there.
        if let Err(error) = empty(&self.base) {
            tracing::warn!("{error}");
        }
        Ok(())
    }
}

/// What killed processes have thrown away and did not get to remove.
pub(crate) fn left(base: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for item in items(base)? {
        if claim(&item)?.is_some() {
            found.push(item);
        }
    }
    Ok(found)
}

/// Removes it.
pub(crate) fn empty(base: &Path) -> Result<(), Error> {
    for item in items(base)? {
        if let Some(_lock) = claim(&item)? {
            remove_tree(&item)?;
        }
    }
    Ok(())
}

fn items(base: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = folder(base);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context("list", &dir)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.push(entry.context("list", &dir)?.path());
    }
    Ok(found)
}

/// Locks what a process is removing; `None` if it is gone, or another process removes it. The kernel
/// releases the lock of a process that is killed.
fn claim(item: &Path) -> Result<Option<File>, Error> {
    let file = match File::open(item) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("open", item),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).context("lock", item),
    }
}

fn folder(base: &Path) -> PathBuf {
    base.join("trash")
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// Waits for what is locked no longer: a process that another test forks has a copy of a lock until it ends.
    fn until(is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(30));
            thread::yield_now();
        }
    }

    #[test]
    fn discarded_scope_disappears_at_once_and_is_deleted_by_next_removal() {
        let base = tempfile::tempdir().unwrap();
        let scope = base.path().join("scope");
        fs::create_dir_all(scope.join("upper/deep")).unwrap();
        let trash = Trash::discard(base.path(), &scope).unwrap();
        assert!(!scope.exists());
        drop(trash);
        assert_eq!(fs::read_dir(folder(base.path())).unwrap().count(), 1);
        until(|| left(base.path()).unwrap().len() == 1);
        until(|| {
            let next = Trash::discard(base.path(), &scope).unwrap();
            next.remove().unwrap();
            fs::read_dir(folder(base.path())).unwrap().count() == 0
        });
    }

    #[test]
    fn what_a_process_is_removing_is_left_to_it() {
        let base = tempfile::tempdir().unwrap();
        let item = folder(base.path()).join("1.1");
        fs::create_dir_all(item.join("upper")).unwrap();
        let lock = claim(&item).unwrap().unwrap();
        assert!(left(base.path()).unwrap().is_empty());
        empty(base.path()).unwrap();
        assert!(item.exists());
        drop(lock);
        until(|| {
            empty(base.path()).unwrap();
            !item.exists()
        });
    }
}
