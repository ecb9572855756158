//! The messages between an executor and a monitor.
//!
//! A client sends [`Request`]s over a connection of [`channel`](crate::channel) and gets one
//! [`Response`] with the same serial for each, in whatever order they become ready: a `Wait` is
//! answered when the process has ended. A connection's first word is the client's; a request of a
//! version that the monitor does not know is refused by name, so that programs of different
//! releases never misunderstand each other.

use std::path::PathBuf;

use reaper_overlay::ViewRequest;
use reaper_spec::{
    CgroupsPath, ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity, ProcessSpec, Status,
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::ContainerCgroup,
    executor::{ContainerState, CreatedProcess, MonitorOptions, ProcessInfo, Stats},
    io::Streams,
    signal::Signal,
};

/// The version of this protocol.
pub(crate) const VERSION: u32 = 1;

/// The part of a request that is the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) version: u32,
    pub(crate) serial: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    #[serde(flatten)]
    pub(crate) envelope: Envelope,
    pub(crate) call: Call,
}

/// Which descriptors come with a message, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    pub(crate) inherited: [bool; 3],
    pub(crate) console_socket: bool,
    pub(crate) preserved: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateCall {
    pub(crate) id: ContainerId,
    pub(crate) namespace: String,
    pub(crate) dir: PathBuf,
    pub(crate) process: ProcessSpec,
    pub(crate) cgroups_path: Option<CgroupsPath>,
    pub(crate) view: ViewRequest,
    pub(crate) streams: Streams,
    pub(crate) attached: Attached,
    pub(crate) options: MonitorOptions,
    #[serde(default)]
    pub(crate) runtime: Option<RuntimeConfig>,
}

/// An OCI runtime that makes a container, instead of the monitor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RuntimeConfig {
    /// Its program, absolute.
    pub(crate) program: PathBuf,
    pub(crate) bundle: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecCall {
    pub(crate) exec: ExecId,
    pub(crate) process: ProcessSpec,
    #[serde(default, rename = "document")]
    pub(crate) process_json: Option<String>,
    pub(crate) streams: Streams,
    pub(crate) attached: Attached,
    #[serde(rename = "tied")]
    pub(crate) kill_on_disconnect: bool,
}

/// A call. `exec` names an exec'd process; without it the init process is meant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Create(Box<CreateCall>),
    /// Cleans up after a killed monitor, and records the exit. `dir` is the container's folder; with
    /// `remove` the files in it are deleted.
    #[serde(rename = "Bury")]
    Cleanup {
        id: ContainerId,
        dir: PathBuf,
        #[serde(rename = "forget")]
        remove: bool,
    },
    /// Removes what a view keeps for a container that ran no process of its own.
    #[serde(rename = "Forget")]
    RemoveView(Box<ViewRequest>),
    /// Removes what is unused on the host now that the container of a view is deleted. It is answered
    /// at once, and goes on afterwards.
    #[serde(rename = "Housekeep")]
    CollectGarbage(Box<ViewRequest>),
    Exec(Box<ExecCall>),
    /// With three descriptors, they replace the process's streams.
    Start {
        exec: Option<ExecId>,
    },
    Kill {
        exec: Option<ExecId>,
        signal: Signal,
        all: bool,
    },
    Wait {
        exec: Option<ExecId>,
    },
    Resize {
        exec: Option<ExecId>,
        size: ConsoleSize,
    },
    CloseStdin {
        exec: Option<ExecId>,
    },
    Pause,
    Resume,
    Pids,
    Stats,
    #[serde(rename = "Observe")]
    State,
    Delete {
        exec: Option<ExecId>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) serial: u64,
    pub(crate) answer: Result<Answer, Failure>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Created(CreatedProcess),
    Started(ProcessIdentity),
    Exit(Exit),
    Deleted(Option<Exit>),
    #[serde(rename = "Observed")]
    State(ContainerState),
    Pids(Vec<ProcessInfo>),
    Stats(Stats),
}

/// An [`Error`](crate::Error) without its target, which the client knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound,
    AlreadyExists,
    Ended,
    Status {
        operation: String,
        status: Status,
    },
    Setup {
        step: String,
        message: String,
        errno: Option<i32>,
    },
    Execve {
        program: String,
        message: String,
        errno: i32,
    },
    Unsupported {
        operation: String,
        reason: String,
    },
    Refused {
        reason: String,
    },
}

impl Failure {
    /// A step of making a process that failed with `source`.
    pub(crate) fn setup(step: impl Into<String>, source: &std::io::Error) -> Self {
        Self::Setup {
            step: step.into(),
            message: source.to_string(),
            errno: source.raw_os_error(),
        }
    }

    /// A step that failed with `error`, whose message has the errno already.
    pub(crate) fn from_error(step: &str, error: &dyn std::error::Error) -> Self {
        Self::Setup {
            step: step.to_owned(),
            message: error.to_string(),
            errno: None,
        }
    }

    pub(crate) fn status(operation: &str, status: Status) -> Self {
        Self::Status {
            operation: operation.to_owned(),
            status,
        }
    }
}

/// What a process reports to its monitor over its start socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ChildReport {
    /// It waits for the start message.
    Ready { warnings: Vec<String> },
    /// A step failed; it exits.
    Failed {
        step: String,
        message: String,
        errno: Option<i32>,
    },
    /// execve(2) failed; it exits.
    Execve {
        program: String,
        message: String,
        errno: i32,
    },
}

/// Has a process execute its program. Three descriptors with it replace its streams.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartMessage;

/// `plan.json`: what has to be cleaned up if the monitor is killed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CleanupRecord {
    pub(crate) version: u32,
    pub(crate) monitor: ProcessIdentity,
    pub(crate) view: ViewRequest,
    pub(crate) cgroup: Option<ContainerCgroup>,
    #[serde(default)]
    pub(crate) runtime: Option<RuntimeConfig>,
}

/// The durable record of a container's end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) exit: Exit,
}
