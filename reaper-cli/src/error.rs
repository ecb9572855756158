//! Why a command did not do what was asked, in words for people.

use std::{io, path::PathBuf};

use reaper_exec::{Error as ExecutorError, engine::Error as EngineError};
use reaper_overlay::Error as OverlayError;
use reaper_spec::{ContainerId, Status};
use reaper_state::Error as StoreError;

use crate::text::printable;

/// The result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// A bundle, a process or the configuration was refused.
    #[error(transparent)]
    Spec(#[from] reaper_spec::Error),
    /// A configuration file is wrong.
    #[error("{source} (line {line})")]
    ConfigLine {
        /// Where in the file, counted from 1.
        line: usize,
        /// What is wrong, and in which file.
        source: reaper_spec::Error,
    },
    /// The engine's reason.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A store's reason, about more than one container.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such container, but one with a name like it.
    #[error("container {id} does not exist: did you mean {meant}?")]
    Unknown {
        /// What was named.
        id: ContainerId,
        /// What there is.
        meant: ContainerId,
    },
    /// No container of a pod is called so.
    #[error(
        "there is no container {name} of a pod{}",
        meant.as_ref().map(|meant| format!(": did you mean {meant}?")).unwrap_or_default()
    )]
    NoPod {
        /// What was named.
        name: String,
        /// What there is.
        meant: Option<String>,
    },
    /// More than one container is called so.
    #[error("{name} is one of several containers: name one of {}", candidates.join(", "))]
    Ambiguous {
        /// What was named.
        name: String,
        /// Their names, each with its id.
        candidates: Vec<String>,
    },
    /// Something could not be done for some containers or overlays; each was named.
    #[error("{failed} of {all} {what} could not be {done}, see above")]
    Incomplete {
        /// Of what.
        what: &'static str,
        /// What could not be done.
        done: &'static str,
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
    /// An archive lacks some files, or has them not as they were; each was named.
    #[error("{0} files are not in the archive as they are in the overlay, see above")]
    ArchiveFlawed(usize),
    /// The executor's reason, about an exec'd process.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// What was written over this machine cannot be read or changed.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A file or a system call failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done, to what.
        operation: String,
        /// What went wrong.
        source: io::Error,
    },
    /// An option has a value that cannot be used.
    #[error("{option}: {problem}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The process wants a terminal, and this call does not stay to serve it.
    #[error(
        "the process wants a terminal, and this call will not stay to serve it: give \
         --console-socket, use `reaper-runtime run` without --detach, or say terminal: false"
    )]
    NoTerminal,
    /// The container is not in a status in which this can be done.
    #[error("cannot {operation} container {id}: it is {status}")]
    Status {
        /// What was asked.
        operation: &'static str,
        /// The container.
        id: String,
        /// Where it is.
        status: Status,
    },
    /// What a container writes is not kept.
    #[error(
        "container {0} has no log: its output goes to the streams of the call that started it, or \
         where containerd has it (`kubectl logs`); `run --detach -- COMMAND` keeps one"
    )]
    NoLog(String),
    /// A starter file would be overwritten.
    #[error("{} exists already: remove it first, or give another folder by --bundle", .0.display())]
    Exists(PathBuf),
    /// The node cannot be installed to, or what was installed cannot be removed.
    #[error("{0}")]
    Node(String),
    /// What a helper process reported. It is complete as it is.
    #[error("{0}")]
    HelperFailed(String),
}

impl Error {
    /// A failed file operation or system call.
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }

    /// The message for people and logs: one line, with the way out.
    pub(crate) fn line(&self) -> String {
        let mut line = printable(&self.to_string().replace('\n', "; "));
        if let Some(hint) = self.hint() {
            line.push_str(": ");
            line.push_str(&hint);
        }
        line
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Spec(reaper_spec::Error::NoConfigJson { .. }) => Some(
                "name a bundle by --bundle, make one by `reaper-runtime spec`, or run a command \
                 by `reaper-runtime run -- COMMAND`"
                    .to_owned(),
            ),
            Self::Engine(EngineError::Store(StoreError::NotFound { .. })) => {
                Some("see `reaper-runtime list`".to_owned())
            }
            Self::NoPod { meant: None, .. } => {
                Some("see `reaper-runtime --namespace k8s.io list`".to_owned())
            }
            Self::Engine(EngineError::Store(StoreError::AlreadyExists { id })) => Some(format!(
                "choose another name, or remove it by `reaper-runtime delete {id}`"
            )),
            Self::Overlay(OverlayError::ScopeNotFound { .. }) => Some(
                "`reaper-runtime overlay ls` has the names; a container without an overlay of its \
                 own shares that of its scope"
                    .to_owned(),
            ),
            Self::Overlay(OverlayError::ScopeBusy { .. }) => {
                Some("end these containers first".to_owned())
            }
            _ if self.is_denied() && !nix::unistd::geteuid().is_root() => Some(format!(
                "this is uid {}: the state below /run, mounts, cgroups and other users need root \
                 (sudo, or CAP_SYS_ADMIN)",
                nix::unistd::geteuid()
            )),
            _ => None,
        }
    }

    /// Whether the reader of the output has closed it.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::BrokenPipe,
            Self::Overlay(error) => error.errno() == Some(nix::libc::EPIPE),
            _ => false,
        }
    }

    /// Whether the kernel refused something for lack of rights.
    fn is_denied(&self) -> bool {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Io { source, .. }
            | Self::Spec(reaper_spec::Error::Read { source, .. })
            | Self::Store(StoreError::Io { source, .. })
            | Self::Engine(
                EngineError::Folder { source, .. }
                | EngineError::Store(StoreError::Io { source, .. }),
            ) => denied(source),
            Self::Overlay(error) => error
                .errno()
                .is_some_and(|errno| denied(&io::Error::from_raw_os_error(errno))),
            Self::Engine(EngineError::Executor(error)) | Self::Executor(error) => match error {
                ExecutorError::Setup {
                    errno: Some(errno), ..
                } => denied(&io::Error::from_raw_os_error(*errno)),
                ExecutorError::Io { source, .. } => denied(source),
                _ => false,
            },
            _ => false,
        }
    }
}
