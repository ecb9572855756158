//! Why something could not be done.

use std::path::{Path, PathBuf};

use super::rootless::RootlessError;

/// Why a view could not be made, entered or released, or a scope not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    System {
        /// What was being done, for example `mount the overlay on`.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A system call failed in the short-lived process that works inside a scope.
    #[error("{operation} {}: {source}", path.display())]
    Helper {
        /// What was being done.
        operation: String,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The short-lived process that works inside a scope ended without an answer.
    #[error("the helper that was to {operation} ended without an answer: {status}")]
    HelperDied {
        /// What it was to do.
        operation: &'static str,
        /// How it ended.
        status: String,
    },
    /// The machine does not let an ordinary user have an overlay.
    #[error(
        "{operation}: {source}: {reason}; or run as root, or, with REAPER_OVERLAY_ENABLED=false, \
         on the host itself"
    )]
    RootlessRefused {
        /// The step that was refused, and where.
        operation: String,
        /// What the kernel said.
        source: std::io::Error,
        /// Why, and what can be done.
        reason: RootlessError,
    },
    /// The kernel lets root have no overlay here.
    #[error(
        "{operation}: {source}: {reason}; or run without an overlay, on the host itself (`--overlay=none`, or \
         overlay.enabled = false)"
    )]
    Refused {
        /// The step that was refused, and where.
        operation: String,
        /// What the kernel said.
        source: std::io::Error,
        /// Why, and what can be done.
        reason: &'static str,
    },
    /// Something is asked for that an ordinary user cannot have.
    #[error("{what} needs root")]
    NeedsRoot {
        /// What is asked for.
        what: String,
    },
    /// A name is no name for a scope.
    #[error(
        "the scope name {name:?} is refused: letters, digits, '_', '-', '.' and '+' are allowed, \
         a letter, a digit or '_' in front, at most 128"
    )]
    ScopeName {
        /// The name.
        name: String,
    },
    /// A mount of the host can neither be overlaid nor be made read-only.
    #[error("{} cannot be protected: {source}", path.display())]
    Unprotected {
        /// Where it is mounted.
        path: PathBuf,
        /// Why the last attempt failed.
        source: std::io::Error,
    },
    /// A requested mount has an option that is unknown, or that a mount of its kind cannot have.
    #[error(
        "the mount on {} has the option {option:?}, which is unknown or not supported for it",
        destination.display()
    )]
    MountOption {
        /// Where it was to be mounted.
        destination: PathBuf,
        /// The option.
        option: String,
    },
    /// What was opened for a mount is not what the node's policy allows.
    #[error(transparent)]
    Policy(#[from] reaper_spec::Error),
    /// A requested bind mount does not say what to mount.
    #[error("the bind mount on {} has no source", destination.display())]
    MountSource {
        /// Where it was to be mounted.
        destination: PathBuf,
    },
    /// A mount of the type `cgroup` is requested elsewhere than where the node's cgroups are.
    #[error(
        "the mount of type cgroup on {} is refused: the node's cgroups are on /sys/fs/cgroup in every view, bind \
         that",
        destination.display()
    )]
    CgroupMount {
        /// Where it was to be mounted.
        destination: PathBuf,
    },
    /// A requested mount has a destination that is relative, or inside `/proc` and not what is mounted there
    /// anyway.
    #[error(
        "{} is no place to mount on: neither is `/`, nor a path that is relative or has `..`, nor one in \
         /proc, unless that is the source as well or a file such as /proc/meminfo",
        destination.display()
    )]
    MountDestination {
        /// Where it was to be mounted.
        destination: PathBuf,
    },
    /// The destination of a mount is a directory and its source is none, or the other way round.
    #[error(
        "the mount on {} needs a {} there, and it is none",
        destination.display(),
        if *directory { "directory" } else { "file" }
    )]
    MountKind {
        /// Where it was to be mounted.
        destination: PathBuf,
        /// Whether the source is a directory.
        directory: bool,
    },
    /// Paths that shall be writable do not exist on the host.
    #[error("nothing to make writable: {} missing on the host", list(paths))]
    MissingMountPoints {
        /// The paths that do not exist.
        paths: Vec<PathBuf>,
    },
    /// The image was asked for, and its root filesystem was not given.
    #[error(
        "the image mode needs the image's root filesystem, and none was given: set image = \"ignore\", or name it as the \
         root of the bundle"
    )]
    ImageMissing,
    /// A pattern of the masks cannot be read.
    #[error("the mask {pattern:?} is no pattern: {source}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// There is no such scope.
    #[error("there is no scope {name}")]
    ScopeNotFound {
        /// The name.
        name: String,
    },
    /// The scope has members.
    #[error("the scope {name} is in use by {}", users(by))]
    ScopeBusy {
        /// The scope.
        name: String,
        /// The ids of its members, as far as they are known.
        by: Vec<String>,
    },
    /// The limit that each scope is to have cannot be kept here.
    #[error("overlay.size_per_scope cannot be kept in {}: {reason}", base.display())]
    ScopeLimit {
        /// Where the scopes are.
        base: PathBuf,
        /// Why, and what can be done.
        reason: &'static str,
    },
    /// Something was mounted over the base, which hides what is in use there.
    #[error(
        "the overlays in {} are hidden, since something was mounted on {} after them: unmount that, \
         or set overlay.base to another directory",
        base.display(),
        by.display()
    )]
    BaseCovered {
        /// The base.
        base: PathBuf,
        /// Where the mount is that hides it.
        by: PathBuf,
    },
    /// The layers of the scope are mounted where this process cannot see it.
    #[error(
        "the scope {name} is in use from another mount namespace, by processes that cannot be seen \
         from here: start from there, or give one of the two another `overlay.base`"
    )]
    MountedElsewhere {
        /// The scope.
        name: String,
    },
    /// A change lies under a mask, and cannot be made on the host.
    #[error("{} is masked: what the overlay has there never saw the host's", path.display())]
    Masked {
        /// The path.
        path: PathBuf,
    },
    /// Another commit to the host is under way.
    #[error(
        "another commit of the overlays in {} is under way: wait for its end, or end it",
        base.display()
    )]
    CommitBusy {
        /// The base of the overlays.
        base: PathBuf,
    },
    /// A file of the scope or of the host was changed, moved or removed while it was being committed.
    /// Nothing was changed on the host.
    #[error(
        "{} changed meanwhile: nothing was changed on this machine; try again when neither a \
         container nor another program writes there",
        path.display()
    )]
    Changed {
        /// The path, the same on the host and in the view.
        path: PathBuf,
    },
    /// What is to be replaced on the host has a mount on it or below it, which would go with it.
    #[error(
        "{} cannot be replaced or removed while {} is mounted below it: unmount that first",
        path.display(), mount.display()
    )]
    MountBelow {
        /// What is to be replaced.
        path: PathBuf,
        /// Where the mount is.
        mount: PathBuf,
    },
    /// A commit failed, and what it had done was undone.
    #[error("{source}; all that was done before was undone")]
    Undone {
        /// Why it failed.
        source: Box<Self>,
    },
    /// A commit failed, and could not be undone.
    #[error(
        "{source}; what was done before could not be undone: {left}. The next commit tries that \
         again, by {}", journal.display()
    )]
    HalfCommitted {
        /// Why it failed.
        source: Box<Self>,
        /// Why it could not be undone.
        left: Box<Self>,
        /// What there was to do.
        journal: PathBuf,
    },
    /// A file of the base cannot be understood.
    #[error("{} cannot be read: {source}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file of the base was written by a newer Reaper.
    #[error(
        "{}: format version {found}, this program reads up to {known}: use the Reaper that wrote it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}

/// Adds the operation and the path to an error of the system.
pub(crate) trait Context<T> {
    /// The error says `operation` and `path` as well.
    fn context(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;

    /// The same with a path that is found out only after a failure. The kernel goes up to the root to name
    /// a descriptor's file (proc_pid_fd(5)), so to ask for each file of a walk makes the walk quadratic.
    fn with_context(
        self,
        operation: &'static str,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<T, Error>;
}

impl<T, E: Into<std::io::Error>> Context<T> for Result<T, E> {
    fn context(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::System {
            operation,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }

    fn with_context(
        self,
        operation: &'static str,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<T, Error> {
        self.map_err(|source| Error::System {
            operation,
            path: path(),
            source: source.into(),
        })
    }
}

impl Error {
    /// Whether a file of the host, or a directory on the way to it, does not exist.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(nix::libc::ENOENT | nix::libc::ENOTDIR))
    }

    /// Whether something else is in the place of one of Reaper's own files, or a version of it that this one cannot
    /// read.
    pub(crate) fn is_unreadable(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Newer { .. } => true,
            Self::System { source, .. } => match source.raw_os_error() {
                Some(errno) => errno == nix::libc::EISDIR,
                None => source.kind() == std::io::ErrorKind::InvalidInput,
            },
            _ => false,
        }
    }

    /// Whether a lock was held for too long.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == std::io::ErrorKind::TimedOut)
    }

    /// The errno behind it, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. }
            | Self::Helper { source, .. }
            | Self::RootlessRefused { source, .. }
            | Self::Refused { source, .. }
            | Self::Unprotected { source, .. } => source.raw_os_error(),
            Self::Undone { source } | Self::HalfCommitted { source, .. } => source.errno(),
            _ => None,
        }
    }
}

/// Who uses a scope, in words: a member that is just joining or leaving has no name there.
fn users(by: &[String]) -> String {
    if by.is_empty() {
        "a container that begins or ends just now".to_owned()
    } else {
        by.join(", ")
    }
}
