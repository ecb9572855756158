//! A leaf: the cgroup that one process of a container, and what it starts, is in.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{error::Error, subtree};

/// A leaf of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    path: PathBuf,
}

impl Leaf {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling process into it.
    ///
    /// The kernel waits for an RCU grace period, milliseconds, to do so: starting a process in
    /// the leaf, by clone3(2) with [`open_dir`](Self::open_dir), does not.
    ///
    /// # Errors
    /// [`Error::Type`] if the leaf is in a threaded cgroup, [`Error::Io`].
    pub fn join_self(&self) -> Result<(), Error> {
        subtree::write_existing(&self.path.join("cgroup.procs"), "0")
            .map_err(|source| self.refused(source))
    }

    /// Opens the folder, for clone3(2) with `CLONE_INTO_CGROUP`.
    ///
    /// # Errors
    /// The folder could not be opened.
    pub fn open_dir(&self) -> io::Result<OwnedFd> {
        File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_PATH)
            .open(&self.path)
            .map(OwnedFd::from)
    }

    /// Says why a process could not join, or be started in, this leaf.
    pub(crate) fn refused(&self, source: io::Error) -> Error {
        if source.raw_os_error() == Some(libc::EOPNOTSUPP)
            && let Ok(kind) = std::fs::read_to_string(self.path.join("cgroup.type"))
        {
            return Error::Type {
                path: self.path.clone(),
                kind: kind.trim().to_owned(),
            };
        }
        Error::Io {
            operation: "join cgroup",
            path: self.path.clone(),
            source,
        }
    }

    /// Kills everything in it, as [`ContainerCgroup::kill`](super::ContainerCgroup::kill).
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the leaf does not exist.
    pub fn kill(&self) -> Result<(), Error> {
        subtree::kill(&self.path)
    }

    /// Sends a signal to everything in it, as
    /// [`ContainerCgroup::signal`](super::ContainerCgroup::signal).
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the leaf does not exist.
    pub fn signal(&self, signal: i32) -> Result<usize, Error> {
        subtree::signal(&self.path, signal).map(|reached| reached.len())
    }

    /// The processes in it. A leaf that does not exist has none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        subtree::pids(&self.path)
    }

    /// Whether there are processes in it. A leaf that does not exist has none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn populated(&self) -> Result<bool, Error> {
        subtree::populated(&self.path)
    }

    /// Removes it, and what the workload made below it. Idempotent.
    ///
    /// # Errors
    /// [`Error::Populated`] while processes are in it, [`Error::Io`].
    pub fn remove(&self) -> Result<(), Error> {
        subtree::remove(&self.path)
    }
}
