//! What can go wrong, and what containerd is told.

use std::{io, path::PathBuf, time::Duration};

use containerd_shim_protos::ttrpc::{self, Code};
use reaper_exec::{ParseSignalError, Target, engine};
use reaper_spec::{ContainerId, IdError, NamespaceKind, Status};

/// The result of a shim's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a shim did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine's or its executor's reason, and what this shim itself says of a process: that it
    /// does not exist or has ended, that its id is taken, or that its status does not allow this.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The bundle, the process or the configuration is refused.
    #[error(transparent)]
    Spec(#[from] reaper_spec::Error),
    /// An id is refused.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A signal is refused.
    #[error(transparent)]
    Signal(#[from] ParseSignalError),
    /// A request has a field that cannot be used.
    #[error("{field}: {reason}")]
    Field {
        /// The request and the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The shim does not do this.
    #[error("cannot {operation} {target}: {reason}")]
    Unsupported {
        /// What was asked.
        operation: &'static str,
        /// Of what.
        target: String,
        /// Why not, and what can be done.
        reason: &'static str,
    },
    /// The shim is about to end, so that nothing new can begin.
    #[error("cannot create container {0}: this shim is shutting down")]
    ShuttingDown(ContainerId),
    /// A container is in a namespace of its pod's sandbox, and it is not known which that is.
    #[error(
        "the {namespace} namespace of the pod of sandbox {sandbox:?} is not known, as {reason}: delete the \
         pod, so that it is created anew"
    )]
    UnknownSandbox {
        /// The namespace.
        namespace: NamespaceKind,
        /// The sandbox's id, empty where the container names none.
        sandbox: String,
        /// What is missing.
        reason: &'static str,
    },
    /// A request took too long. What it began goes on.
    #[error("{operation} did not finish within {} s", after.as_secs())]
    Timeout {
        /// The request.
        operation: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The code that served a request panicked.
    #[error("{operation} failed by a defect of the shim: {message}")]
    Panicked {
        /// The request.
        operation: &'static str,
        /// What the panic said.
        message: String,
    },
    /// The command line is not one that containerd writes.
    #[error("command line: {0}")]
    Flags(#[from] containerd_shim::Error),
    /// The action is not known.
    #[error("unknown action {0:?}: containerd runs this program with `start` or `delete`")]
    Action(String),
    /// A message could not be encoded.
    #[error("encode {message}: {source}")]
    Encode {
        /// Which.
        message: &'static str,
        /// Why not.
        source: containerd_shim_protos::protobuf::Error,
    },
    /// The executor or the store could not be made ready.
    #[error("open the executor and the store: {0}")]
    OpenRuntime(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The shim's daemon ended before it was ready.
    #[error("the shim's daemon did not start: {0}")]
    Daemon(String),
    /// The ttrpc server could not be started.
    #[error("serve the task API: {0}")]
    Serve(#[source] ttrpc::Error),
    /// A system call failed.
    #[error("{operation}: {source}")]
    System {
        /// What was being done.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file could not be used.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl From<reaper_exec::Error> for Error {
    fn from(error: reaper_exec::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<reaper_state::Error> for Error {
    fn from(error: reaper_state::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl Error {
    /// A process is not in a status in which this can be done.
    pub(crate) fn status(operation: &str, target: &Target, status: Status) -> Self {
        reaper_exec::Error::Status {
            operation: operation.to_owned(),
            target: target.clone(),
            status,
        }
        .into()
    }

    /// The gRPC code that containerd acts on: it takes `NotFound` for the goal of a kill or a
    /// deletion, and `Unimplemented` for something to do without.
    pub fn code(&self) -> Code {
        match self {
            Self::Engine(error) => engine_code(error),
            Self::Spec(_) | Self::Id(_) | Self::Signal(_) | Self::Field { .. } => {
                Code::INVALID_ARGUMENT
            }
            Self::Unsupported { .. } => Code::UNIMPLEMENTED,
            Self::ShuttingDown(_) => Code::UNAVAILABLE,
            Self::UnknownSandbox { .. } => Code::FAILED_PRECONDITION,
            Self::Timeout { .. } => Code::DEADLINE_EXCEEDED,
            _ => Code::INTERNAL,
        }
    }
}

fn engine_code(error: &engine::Error) -> Code {
    match error {
        engine::Error::Executor(error) => executor_code(error),
        engine::Error::Store(reaper_state::Error::NotFound { .. }) => Code::NOT_FOUND,
        engine::Error::Store(reaper_state::Error::AlreadyExists { .. }) => Code::ALREADY_EXISTS,
        engine::Error::Transition { .. } | engine::Error::NotStopped { .. } => {
            Code::FAILED_PRECONDITION
        }
        engine::Error::Policy(_) => Code::RESOURCE_EXHAUSTED,
        _ => Code::INTERNAL,
    }
}

fn executor_code(error: &reaper_exec::Error) -> Code {
    match error {
        reaper_exec::Error::NotFound(_) | reaper_exec::Error::Ended(_) => Code::NOT_FOUND,
        reaper_exec::Error::AlreadyExists(_) => Code::ALREADY_EXISTS,
        reaper_exec::Error::Status { .. } => Code::FAILED_PRECONDITION,
        reaper_exec::Error::Unsupported { .. } => Code::UNIMPLEMENTED,
        // As runc's shim: what the user's program or bundle is to blame for has no code of its own.
        reaper_exec::Error::Setup { .. } | reaper_exec::Error::Execve { .. } => Code::UNKNOWN,
        _ => Code::INTERNAL,
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error.to_string()))
    }
}
