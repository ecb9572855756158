//! The socket of a pod's shim: who listens on it, and who finds it taken.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use reaper_state::{StateRoot, lock_exclusive};

use crate::{Error, Result};

/// A `sockaddr_un` holds 108 bytes, a NUL at the end included.
const LONGEST_PATH: usize = 107;
/// Where containerd's own shims have their sockets: short enough whatever our root is.
const CONTAINERD_SOCKETS: &str = "/run/containerd/s";

/// Where the shim of one group of containers listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketPath(PathBuf);

/// What came of an attempt to listen.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is ours.
    Won(UnixListener),
    /// A shim of the group listens already.
    Taken,
}

impl SocketPath {
    /// The socket of the containers that `group` names, in a containerd namespace of the
    /// containerd at `address`.
    pub(super) fn new(dir: &Path, address: &str, namespace: &str, group: &str) -> Self {
        // The name that containerd's own shims would use, cut to 128 bits of its hash.
        let address = containerd_shim::socket_address(address, namespace, group);
        let hash = address.rsplit('/').next().unwrap_or_default();
        let name = &hash[..hash.len().min(32)];
        let path = dir.join(name);
        if path.as_os_str().len() <= LONGEST_PATH {
            Self(path)
        } else {
            Self(Path::new(CONTAINERD_SOCKETS).join(name))
        }
    }

    /// The socket that an `address` file names.
    pub(super) fn from_address(address: &str) -> Self {
        let path = address.trim();
        Self(PathBuf::from(path.strip_prefix("unix://").unwrap_or(path)))
    }

    /// The folder of sockets below a state root. No namespace can have this name.
    pub(super) fn dir(state_root: &Path) -> PathBuf {
        StateRoot::new(state_root)
            .containerd_namespace(".s")
            .path()
            .to_owned()
    }

    /// As containerd reads it.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.0.display())
    }

    /// Listens, unless another shim does already. A socket without a listener is replaced.
    pub(super) fn claim(&self) -> Result<Claim> {
        let _lock = self.lock()?;
        match self.probe() {
            Ok(true) => return Ok(Claim::Taken),
            Ok(false) => self.unlink()?,
            Err(error) => return Err(self.failed("connect to", error.into())),
        }
        let listener =
            UnixListener::bind(&self.0).map_err(|error| self.failed("listen on", error))?;
        Ok(Claim::Won(listener))
    }

    /// Removes the socket if it has no listener.
    pub(super) fn remove_dead(&self) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        match self.probe() {
            Ok(true) => Ok(()),
            _ => self.unlink(),
        }
    }

    /// What tells this socket from one that replaces it.
    pub(super) fn identity(&self) -> Result<(u64, u64)> {
        let found = fs::symlink_metadata(&self.0).map_err(|error| self.failed("look at", error))?;
        Ok((found.dev(), found.ino()))
    }

    /// Removes the socket if it still is the one that was `identity`.
    pub(super) fn remove(&self, identity: (u64, u64)) -> Result<()> {
        let _lock = self.lock()?;
        match self.identity() {
            Ok(found) if found == identity => self.unlink(),
            _ => Ok(()),
        }
    }

    /// One claim or removal at a time, of all sockets of the folder; each takes microseconds. The
    /// folder itself is the lock, so that no lock files are left over.
    fn lock(&self) -> Result<File> {
        let dir = self.0.parent().unwrap_or(Path::new("/"));
        let failed = |operation: &'static str, source: io::Error| Error::File {
            operation,
            path: dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| failed("make", source))?;
        let opened = File::open(dir).map_err(|source| failed("open", source))?;
        lock_exclusive(&opened).map_err(|source| failed("lock", source))?;
        Ok(opened)
    }

    /// Whether the socket has a listener. Connects without blocking, so a listener that hangs is
    /// not waited for.
    fn probe(&self) -> nix::Result<bool> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let address = UnixAddr::new(&self.0)?;
        match connect(std::os::fd::AsRawFd::as_raw_fd(&probe), &address) {
            // With EAGAIN there is a listener, too busy to accept.
            Ok(()) | Err(Errno::EAGAIN) => Ok(true),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unlink(&self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", error))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> Error {
        Error::File {
            operation,
            path: self.0.clone(),
            source,
        }
    }
}
