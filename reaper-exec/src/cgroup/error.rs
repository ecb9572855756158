//! Why something could not be done with a cgroup.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why something could not be done with a cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the hierarchy refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The cgroup still holds processes.
    #[error("cgroup {} holds processes: end them, or name another cgroup by linux.cgroupsPath", .0.display())]
    Populated(PathBuf),
    /// Another container, whose monitor runs, has the cgroup.
    #[error("cgroup {} is another container's: name another one by linux.cgroupsPath", .0.display())]
    Claimed(PathBuf),
    /// The cgroup's type does not allow processes of another cgroup to join it.
    #[error("cannot join cgroup {}: its type is {kind:?}, it must be \"domain\"", path.display())]
    Type {
        /// The cgroup.
        path: PathBuf,
        /// Its `cgroup.type`, such as `threaded` or `domain invalid`.
        kind: String,
    },
    /// A limit that the spec asks for has no controller on this node.
    #[error("cannot set linux.resources.{setting}: {reason}")]
    NoController {
        /// Its place below `linux.resources`.
        setting: String,
        /// Why there is no cgroup with the controller.
        reason: String,
    },
    /// A limit contradicts another.
    #[error("linux.resources.{setting} is wrong: {reason}")]
    Contradiction {
        /// Its place below `linux.resources`.
        setting: String,
        /// What it contradicts.
        reason: String,
    },
    /// systemd did not make a scope.
    #[error("systemd cannot start {unit}: {source}")]
    Systemd {
        /// The scope.
        unit: String,
        /// What it said, or why it could not be asked.
        source: io::Error,
    },
    /// The kernel refused a limit.
    #[error(
        "cannot set linux.resources.{setting}: writing {value:?} to {}: {source}",
        path.display()
    )]
    Limit {
        /// Its place below `linux.resources`.
        setting: String,
        /// The file of the cgroup.
        path: PathBuf,
        /// What was written.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the program of the device rules.
    #[error("cannot set linux.resources.devices: cannot {operation} {}: {source}", path.display())]
    Devices {
        /// What was being done.
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path that leads out of the hierarchy, or nowhere.
    #[error("{:?} is no path of a cgroup: it must be relative, without \"..\"", .0)]
    Path(PathBuf),
}

impl Error {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// Whether the hierarchy is read-only or not this user's.
    pub(super) fn is_refused(&self) -> bool {
        let refuses = |source: &io::Error| {
            let errno = source.raw_os_error();
            matches!(errno, Some(libc::EACCES | libc::EPERM | libc::EROFS))
        };
        matches!(self, Self::Io { source, .. } if refuses(source))
    }

    /// Whether this node cannot have device rules hold: there is no cgroup, the kernel is built without
    /// programs for them, or this user may load none.
    pub(super) fn is_missing_device_control(&self) -> bool {
        match self {
            Self::NoController { .. } => true,
            Self::Devices { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)
            ),
            _ => false,
        }
    }

    /// Whether the kernel refuses since the cgroup is threaded.
    pub(super) fn is_threaded(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP))
    }

    /// Whether the cgroup existed, and has been removed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_gone(source))
    }
}

/// `ENOENT` if the folder does not exist, `ENODEV` if it was removed while a file in it was open.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
