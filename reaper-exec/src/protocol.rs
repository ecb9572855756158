//! The messages between an executor and a monitor.
//!
//! A client sends [`RequestMessage`]s over a connection of [`channel`](crate::channel) and gets one
//! [`ResponseMessage`] with the same serial for each, in whatever order they become ready: a `Wait`
//! is answered when the process has exited. A monitor refuses a request of a newer version than its
//! own by name, so that programs of different releases never misunderstand each other.
//!
//! Monitors outlive the programs that started them, so the names in messages and files are those of
//! version 1 whatever the types are called: a renamed one has a `serde(rename)`, and a test
//! compares.

use std::{collections::BTreeMap, path::PathBuf};

use reaper_overlay::ViewRequest;
use reaper_spec::{
    CgroupsPath, ConsoleSize, ContainerId, ExecId, Exit, Hooks, NamespacePath, ProcessIdentity,
    ProcessSpec, Resources, Seccomp, Status,
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Cgroups,
    executor::{ContainerState, CreatedProcess, MonitorOptions, ProcessInfo, Stats},
    hooks::HookFailure,
    io::Streams,
    namespaces::Refused,
    signal::Signal,
};

/// The version of this protocol.
pub(crate) const VERSION: u32 = 1;

/// What a monitor says of a request that is not of its version.
pub(crate) const UNKNOWN_REQUEST: &str = "the request is not known";

/// The part of a request that is the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) version: u32,
    pub(crate) serial: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestMessage {
    #[serde(flatten)]
    pub(crate) envelope: Envelope,
    #[serde(rename = "call")]
    pub(crate) request: Request,
}

/// Which descriptors come with a message, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    pub(crate) inherited: [bool; 3],
    pub(crate) console_socket: bool,
    pub(crate) preserved: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateContainer {
    pub(crate) id: ContainerId,
    pub(crate) namespace: String,
    pub(crate) dir: PathBuf,
    pub(crate) process: ProcessSpec,
    pub(crate) cgroups_path: Option<CgroupsPath>,
    #[serde(default)]
    pub(crate) resources: Resources,
    pub(crate) view: ViewRequest,
    pub(crate) streams: Streams,
    pub(crate) attached: Attached,
    pub(crate) options: MonitorOptions,
    #[serde(default)]
    pub(crate) runtime: Option<RuntimeConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp: Option<SeccompConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<HooksConfig>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) namespaces: Vec<NamespacePath>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) new_pid_namespace: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) holds_pids: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// The programs that are run at steps of the container's life, and what they are told of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HooksConfig {
    pub(crate) hooks: Hooks,
    pub(crate) bundle: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Where failures of those at the end are logged.
    pub(crate) log: Option<PathBuf>,
}

/// The system calls that the container's processes may make, and what their agent is told of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SeccompConfig {
    pub(crate) spec: Seccomp,
    pub(crate) bundle: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// An OCI runtime that makes a container, instead of the monitor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RuntimeConfig {
    /// Its program, absolute.
    pub(crate) program: PathBuf,
    pub(crate) bundle: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecProcess {
    pub(crate) exec: ExecId,
    pub(crate) process: ProcessSpec,
    #[serde(default, rename = "document")]
    pub(crate) process_json: Option<String>,
    pub(crate) streams: Streams,
    pub(crate) attached: Attached,
    #[serde(rename = "tied")]
    pub(crate) kill_on_disconnect: bool,
}

/// A request. `exec` names an exec'd process; without it the init process is meant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Create(Box<CreateContainer>),
    /// Cleans up after a killed monitor, and records the exit. `dir` is the container's folder;
    /// with `remove` the files in it are deleted. With `kill` the monitor is killed first.
    #[serde(rename = "Bury")]
    Cleanup {
        id: ContainerId,
        dir: PathBuf,
        #[serde(rename = "forget")]
        remove: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kill: bool,
    },
    /// Removes what a view keeps for a container that had no process of this executor.
    #[serde(rename = "Forget")]
    RemoveView(Box<ViewRequest>),
    /// Removes what is unused on the host now that the container of a view is deleted. It is
    /// answered at once, and goes on afterwards.
    #[serde(rename = "Housekeep")]
    CollectGarbage(Box<ViewRequest>),
    Exec(Box<ExecProcess>),
    /// With three descriptors, they replace the process's streams.
    Start {
        exec: Option<ExecId>,
    },
    Kill {
        exec: Option<ExecId>,
        signal: Signal,
        all: bool,
        /// To the process's group. Monitors of earlier versions signal the process alone.
        #[serde(default)]
        group: bool,
    },
    /// Kills the container when the connection that this comes by closes.
    KillOnDisconnect,
    /// Waits until the kernel has killed more than `seen` processes for lack of memory, or the
    /// container has stopped. Monitors of earlier versions refuse it.
    OomKills {
        seen: u64,
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
    /// Changes the limits. Monitors of earlier versions refuse it.
    Update(Box<Resources>),
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
pub(crate) struct ResponseMessage {
    pub(crate) serial: u64,
    #[serde(rename = "answer")]
    pub(crate) response: Result<Response, Failure>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    Created(CreatedProcess),
    Started(ProcessIdentity),
    Exit(Exit),
    Deleted(Option<Exit>),
    #[serde(rename = "Observed")]
    State(ContainerState),
    Pids(Vec<ProcessInfo>),
    Stats(Stats),
    OomKills(u64),
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

impl From<Refused> for Failure {
    fn from(Refused { step, source }: Refused) -> Self {
        Self::setup(step, &source)
    }
}

impl From<HookFailure> for Failure {
    fn from(HookFailure { step, message }: HookFailure) -> Self {
        Self::Setup {
            step,
            message,
            errno: None,
        }
    }
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
    /// Its environment is made: it waits for [`RuntimeHooksDone`]. A process of a container with hooks
    /// alone reports it.
    Environment,
    /// It waits for the start message.
    Ready { warnings: Vec<String> },
    /// Its seccomp filter is in force, which asks an agent by this descriptor of its own. It waits
    /// for [`AgentReached`]. See [`seccomp`](crate::seccomp) for how this is written.
    Filtered { listener: i32 },
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

/// Has a process go on that reported that its environment is made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RuntimeHooksDone;

/// Has a process go on that reported that its filter is in force.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentReached;

/// `plan.json`: what has to be cleaned up if the monitor is killed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CleanupRecord {
    pub(crate) version: u32,
    pub(crate) monitor: ProcessIdentity,
    pub(crate) view: ViewRequest,
    #[serde(flatten)]
    pub(crate) cgroups: Cgroups,
    #[serde(default)]
    pub(crate) runtime: Option<RuntimeConfig>,
    /// Those of the end are run with the removal, if others were run before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<HooksConfig>,
}

/// The durable record of a container's end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) exit: Exit,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(value: &impl Serialize) -> serde_json::Value {
        serde_json::to_value(value).expect("a message")
    }

    #[test]
    fn renamed_requests_have_the_names_of_version_1() {
        let id: ContainerId = "web".parse().expect("an id");
        let view = || Box::new(ViewRequest::new(id.clone(), PathBuf::from("/")));
        let cleanup = Request::Cleanup {
            id: id.clone(),
            dir: PathBuf::from("/run/reaper/web"),
            remove: true,
            kill: false,
        };
        let expected = json!({ "id": "web", "dir": "/run/reaper/web", "forget": true });
        assert_eq!(written(&cleanup), json!({ "Bury": expected }));
        assert!(written(&Request::RemoveView(view()))["Forget"].is_object());
        assert!(written(&Request::CollectGarbage(view()))["Housekeep"].is_object());
        assert_eq!(written(&Request::State), json!("Observe"));
        let message = RequestMessage {
            envelope: Envelope {
                version: VERSION,
                serial: 7,
            },
            request: Request::State,
        };
        let expected = json!({ "version": 1, "serial": 7, "call": "Observe" });
        assert_eq!(written(&message), expected);
    }

    #[test]
    fn renamed_fields_of_an_exec_have_the_names_of_version_1() {
        let exec = ExecProcess {
            exec: "shell".parse().expect("an id"),
            process: ProcessSpec::new(["sh"], "/").expect("a process"),
            process_json: Some("{}".to_owned()),
            streams: Streams::default(),
            attached: Attached::default(),
            kill_on_disconnect: true,
        };
        let written = written(&exec);
        assert_eq!(written["document"], json!("{}"));
        assert_eq!(written["tied"], json!(true));
        assert!(written.get("process_json").is_none());
    }

    #[test]
    fn renamed_options_have_the_names_and_the_sense_of_version_1() {
        let options = MonitorOptions {
            propagate_exit: true,
            cgroups: reaper_spec::CgroupMode::Enforce,
            ..MonitorOptions::default()
        };
        let expected = json!({ "mirror_exit": true, "without_cgroup": false, "log": null });
        let mut names = written(&options);
        // Later than version 1, and may be missing.
        names.as_object_mut().expect("an object").remove("inherit");
        assert_eq!(names, expected);
        let read: MonitorOptions = serde_json::from_value(expected).expect("options");
        assert_eq!(read, options);
    }

    #[test]
    fn renamed_answers_have_the_names_of_version_1() {
        let state = ContainerState {
            status: Status::Running,
            process: None,
            monitor: None,
            exit: None,
        };
        let message = ResponseMessage {
            serial: 7,
            response: Ok(Response::State(state)),
        };
        let written = written(&message);
        assert_eq!(
            written["answer"]["Ok"]["Observed"]["status"],
            json!("running")
        );
    }
}
