//! The contract of running processes.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use reaper_overlay::ViewRequest;
use reaper_spec::{
    CgroupsPath, ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity, ProcessSpec, Status,
};
use reaper_state::ContainerDir;
use serde::{Deserialize, Serialize};

use crate::{Signal, io::StdioRequest};

/// The result of an executor's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The process that the container was made for.
    Init(ContainerId),
    /// A process that was added to it.
    Exec(ContainerId, ExecId),
}

impl Target {
    /// The container.
    pub fn container(&self) -> &ContainerId {
        match self {
            Self::Init(id) | Self::Exec(id, _) => id,
        }
    }

    /// The exec id, unless this is the init process.
    pub fn exec_id(&self) -> Option<&ExecId> {
        match self {
            Self::Init(_) => None,
            Self::Exec(_, exec) => Some(exec),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Init(id) => write!(f, "container {id}"),
            Self::Exec(id, exec) => write!(f, "exec {exec} of container {id}"),
        }
    }
}

/// What a container is to be.
#[derive(Debug)]
pub struct CreateRequest {
    /// The container.
    pub id: ContainerId,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// The folder for the monitor's socket and the exit record; it exists.
    pub dir: ContainerDir,
    /// The init process.
    pub process: ProcessSpec,
    /// Where the container's cgroup goes; `None` for `reaper/ID`.
    pub cgroups_path: Option<CgroupsPath>,
    /// What the container sees of the filesystem.
    pub view: ViewRequest,
    /// Where the init process's streams go.
    pub stdio: StdioRequest,
    /// Descriptors that the init process gets from number 3 on (`--preserve-fds`).
    pub preserved: Vec<OwnedFd>,
    /// How the monitor relates to who starts it.
    pub monitor: MonitorOptions,
}

/// How a monitor relates to who starts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorOptions {
    /// The monitor ends in the same way as the init process, code and signal, and passes the
    /// signals that it gets on to it, so that an engine can take it for its own child
    /// (`--pid-file`).
    pub mirror_exit: bool,
    /// The container gets no cgroup of its own. Ending what it leaves behind is then best effort.
    pub without_cgroup: bool,
    /// Where the monitor notes what went wrong when nobody asked, for example that a mount point
    /// could not be removed. By default nowhere.
    pub log: Option<PathBuf>,
}

/// What an exec'd process is to be.
#[derive(Debug)]
pub struct ExecRequest {
    /// The process.
    pub process: ProcessSpec,
    /// The whole of OCI's `process` object that `process` was read from, as JSON, for executors
    /// that hand it on: what `process` has no field for, such as capabilities, counts there as it
    /// says here.
    pub document: Option<String>,
    /// Where its streams go.
    pub stdio: StdioRequest,
    /// Descriptors that it gets from number 3 on.
    pub preserved: Vec<OwnedFd>,
    /// It is killed, with what it started, when the program that asked for it ends or lets go of
    /// its executor: for a program that stands for the process in the eyes of an engine, which
    /// kills the one and means the other.
    pub tied: bool,
}

/// A process that was made and waits at its gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The process. `None` for an exec'd one where the runtime behind an executor has no gate for
    /// these: it is made when it is started, and [`Executor::start`] names it.
    pub process: Option<ProcessIdentity>,
    /// Who waits on it; absent where an executor has no monitors.
    pub monitor: Option<ProcessIdentity>,
    /// What was asked and could not be done, without being worth a failure, for example an OOM
    /// adjustment that the kernel refused, and what people should know of the container's view of
    /// the filesystem.
    pub warnings: Vec<String>,
}

/// What a container is doing, as far as its executor knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What it is doing.
    pub status: Status,
    /// Its init process, where the executor still knows it.
    pub process: Option<ProcessIdentity>,
    /// Who waits on the init process, likewise.
    pub monitor: Option<ProcessIdentity>,
    /// Its end, from `stopped` on.
    pub exit: Option<Exit>,
}

impl Observation {
    /// A container that has ended with `exit`.
    pub fn stopped(exit: Exit) -> Self {
        Self {
            status: Status::Stopped,
            process: None,
            monitor: None,
            exit: Some(exit),
        }
    }
}

/// A process in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Its pid in the host's pid namespace.
    pub pid: u32,
    /// The exec that it is, or that it comes from, where that is known.
    pub exec: Option<ExecId>,
}

/// What a container uses, added up over its processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time in user mode, nanoseconds, monotonic over the container's life.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, nanoseconds, monotonic over the container's life.
    pub cpu_system_ns: u64,
    /// Memory in use, bytes.
    pub memory_bytes: u64,
    /// Its anonymous part, bytes.
    pub memory_anonymous_bytes: u64,
    /// Processes.
    pub processes: u64,
    /// Threads.
    pub threads: u64,
}

/// Runs the processes of containers.
///
/// # Contract
/// * **Create** does everything short of the user's program: when it returns, the process exists,
///   with its identity, streams, credentials and view of the filesystem, and waits at a gate.
/// * **Start** opens the gate, and returns when the program was executed or says why not.
/// * **Wait** is a latch: any number of waiters, before and after the end. Waiting for something
///   that never started waits for its start, its kill or its deletion.
/// * **Ends are durable**: an exit that `wait` returned is what [`observe`](Self::observe) says
///   ever after, from any process, until [`delete`](Self::delete).
/// * **Order**: exits of exec'd processes are seen before the exit of init, and with init
///   everything that it started has ended.
/// * **Cancellation**: dropping a returned future abandons the answer, not the operation.
/// * **Killing** what is ending already, but is not yet seen to have ended, succeeds.
/// * Calls for different containers don't wait for each other. Nothing blocks the calling thread.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Executor: Send + Sync {
    /// Makes a container's init process and leaves it at its gate.
    ///
    /// # Errors
    /// [`Error::Setup`] with the step that failed, or [`Error::Execve`] where the program is
    /// looked for already now; nothing is left behind then.
    async fn create(&self, request: CreateRequest) -> Result<Created>;

    /// Adds a process to a running container and leaves it at its gate.
    ///
    /// One that is still at its gate when the executor goes away may be given up: nobody else knows
    /// it. One that was started goes on.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] for an exec id in use, [`Error::Status`] unless the container is
    /// running, [`Error::Setup`].
    async fn exec(&self, id: &ContainerId, exec: &ExecId, request: ExecRequest) -> Result<Created>;

    /// Executes the program of a process at its gate, and names the process.
    ///
    /// # Errors
    /// [`Error::Execve`] if the program cannot be executed: the process has then ended, as
    /// [`wait`](Self::wait) says too. [`Error::Status`] if it is not at its gate.
    async fn start(&self, target: &Target) -> Result<ProcessIdentity>;

    /// Sends a signal to a process, or to everything in its container or exec with `all`.
    ///
    /// # Errors
    /// [`Error::Ended`] if the process has ended; [`Error::NotFound`].
    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()>;

    /// Waits for the end of a process.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn wait(&self, target: &Target) -> Result<Exit>;

    /// Changes the size of a process's terminal. Without a terminal it does nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn resize(&self, target: &Target, size: ConsoleSize) -> Result<()>;

    /// Ends a process's input once what is buffered was read. Idempotent; remembered before the
    /// start.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn close_stdin(&self, target: &Target) -> Result<()>;

    /// Freezes a container.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the host can't; [`Error::Status`] unless it is running.
    async fn pause(&self, id: &ContainerId) -> Result<()>;

    /// Thaws a container.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is paused.
    async fn resume(&self, id: &ContainerId) -> Result<()>;

    /// The processes in a container now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessEntry>>;

    /// What a container uses now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn stats(&self, id: &ContainerId) -> Result<Stats>;

    /// What a container is doing. Finds the end of one whose monitor was killed, ends what is
    /// left of it, and records it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the executor has no trace of it.
    async fn observe(&self, id: &ContainerId) -> Result<Observation>;

    /// Forgets a process that has ended, and frees all that it holds: streams, and for init the
    /// monitor, the cgroup, the view and the files in its folder.
    /// Deleting what is already gone succeeds with `None`.
    ///
    /// # Errors
    /// [`Error::Status`] if it has not ended.
    async fn delete(&self, target: &Target) -> Result<Option<Exit>>;

    /// Removes what the views of the filesystem keep for `view.id`, which had no process of this
    /// executor's: a pod's sandbox, for which an overlay may be kept that only the pod's
    /// containers share. Idempotent. An executor without views does nothing.
    ///
    /// # Errors
    /// [`Error::Setup`] if something could not be removed.
    async fn forget_view(&self, view: &ViewRequest) -> Result<()> {
        let _ = view;
        Ok(())
    }
}

#[async_trait]
impl<T: Executor + ?Sized> Executor for Arc<T> {
    async fn create(&self, request: CreateRequest) -> Result<Created> {
        (**self).create(request).await
    }
    async fn exec(&self, id: &ContainerId, exec: &ExecId, request: ExecRequest) -> Result<Created> {
        (**self).exec(id, exec, request).await
    }
    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        (**self).start(target).await
    }
    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        (**self).kill(target, signal, all).await
    }
    async fn wait(&self, target: &Target) -> Result<Exit> {
        (**self).wait(target).await
    }
    async fn resize(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        (**self).resize(target, size).await
    }
    async fn close_stdin(&self, target: &Target) -> Result<()> {
        (**self).close_stdin(target).await
    }
    async fn pause(&self, id: &ContainerId) -> Result<()> {
        (**self).pause(id).await
    }
    async fn resume(&self, id: &ContainerId) -> Result<()> {
        (**self).resume(id).await
    }
    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessEntry>> {
        (**self).pids(id).await
    }
    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        (**self).stats(id).await
    }
    async fn observe(&self, id: &ContainerId) -> Result<Observation> {
        (**self).observe(id).await
    }
    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        (**self).delete(target).await
    }
    async fn forget_view(&self, view: &ViewRequest) -> Result<()> {
        (**self).forget_view(view).await
    }
}

/// Why an executor did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such process.
    #[error("{0} does not exist")]
    NotFound(Target),
    /// The id is taken.
    #[error("{0} exists already")]
    AlreadyExists(Target),
    /// The process has ended.
    #[error("{0} has ended")]
    Ended(Target),
    /// It is not in a status in which this can be done.
    #[error("cannot {operation} {target}: it is {status}")]
    Status {
        /// What was asked.
        operation: String,
        /// Of what.
        target: Target,
        /// Where it is.
        status: Status,
    },
    /// A step of making the process failed.
    #[error("{step}: {message}")]
    Setup {
        /// The step, for example `open the stdout FIFO /run/x`.
        step: String,
        /// What went wrong.
        message: String,
        /// The errno, where it was a system call.
        errno: Option<i32>,
    },
    /// The program could not be executed.
    #[error("exec {program}: {message}")]
    Execve {
        /// The program, as it was looked up.
        program: String,
        /// What went wrong, in words.
        message: String,
        /// The errno of execve(2).
        errno: i32,
    },
    /// The host, or this executor, cannot do it.
    #[error("{operation} is not supported: {reason}")]
    Unsupported {
        /// What was asked.
        operation: String,
        /// Why.
        reason: String,
    },
    /// The monitor cannot be reached, or answered nonsense.
    #[error("the monitor of {target}: {reason}")]
    Monitor {
        /// Whose monitor.
        target: Target,
        /// What happened.
        reason: String,
    },
    /// A file or a system call of the executor's own failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done, to what.
        operation: String,
        /// What went wrong.
        source: std::io::Error,
    },
}
