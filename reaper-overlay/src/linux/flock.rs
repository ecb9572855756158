//! Locks on files that may be removed.
//!
//! flock(2), since the kernel releases it when a process is killed. A holder may remove the file:
//! who waits for it would get a lock on a file that no other process can open, so after locking the
//! path is looked up again, and the lock taken anew if it names another file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::contract::{Context, Error};

/// A lock that is held until it is dropped, or until the process ends however it ends. A forked
/// child holds it too, until it has ended as well.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// With others that share it; waits for one that holds it alone.
    Shared,
    /// Alone; waits for all others.
    Exclusive,
}

impl Lock {
    /// Takes the lock named by the file `path`, which is made if it is missing.
    pub(crate) fn take(path: &Path, mode: Mode) -> Result<Self, Error> {
        let operation = match mode {
            Mode::Shared => FlockOperation::LockShared,
            Mode::Exclusive => FlockOperation::LockExclusive,
        };
        match Self::attempt(path, operation)? {
            Some(lock) => Ok(lock),
            None => Err(io::Error::from(io::ErrorKind::WouldBlock)).context("lock", path),
        }
    }

    /// Takes the lock exclusively if no other process holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, Error> {
        Self::attempt(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes a lock on the directory `path`, which exists: exclusively if no other process holds it,
    /// shared once none holds it exclusively.
    pub(crate) fn directory(path: &Path, mode: Mode) -> Result<Option<Self>, Error> {
        let operation = match mode {
            Mode::Shared => FlockOperation::LockShared,
            Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        Self::attempt_on(path, operation, || File::open(path))
    }

    /// Lets others share a lock that was held exclusively.
    pub(crate) fn share(self) -> rustix::io::Result<Self> {
        loop {
            match flock(&self.file, FlockOperation::LockShared) {
                Err(rustix::io::Errno::INTR) => {}
                shared => return shared.map(|()| self),
            }
        }
    }

    fn attempt(path: &Path, operation: FlockOperation) -> Result<Option<Self>, Error> {
        Self::attempt_on(path, operation, || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
        })
    }

    fn attempt_on(
        path: &Path,
        operation: FlockOperation,
        open: impl Fn() -> io::Result<File>,
    ) -> Result<Option<Self>, Error> {
        loop {
            let file = open().context("open the lock", path)?;
            match flock(&file, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno).context("lock", path),
            }
            // The last holder may have removed the file: a lock on a removed file guards nothing.
            let mine = file.metadata().context("stat the lock", path)?;
            match fs::metadata(path) {
                Ok(there) if (there.dev(), there.ino()) == (mine.dev(), mine.ino()) => {
                    return Ok(Some(Self { file }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("stat the lock", path),
            }
        }
    }
}

/// Whether a process holds the lock `path`. A file that is missing is not locked.
pub(crate) fn is_held(path: &Path) -> Result<bool, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("open the lock", path),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno).context("ask for the lock", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_is_held_by_one_exclusive_or_many_shared_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, Mode::Shared).unwrap();
        let second = Lock::take(&path, Mode::Shared).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop((first, second));
        let alone = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(is_held(&path).unwrap());
        drop(alone);
        assert!(!is_held(&path).unwrap());
    }

    #[test]
    fn lock_waiter_locks_new_file_when_old_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let holder = Lock::take(&path, Mode::Exclusive).unwrap();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, Mode::Exclusive).unwrap()
        });
        fs::remove_file(&path).unwrap();
        drop(holder);
        let _waited = waiter.join().unwrap();
        assert!(
            Lock::try_exclusive(&path).unwrap().is_none(),
            "the waiter's lock is on this file"
        );
    }
}
