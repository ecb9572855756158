//! What is asked of an executor, and what it answers.

use std::os::fd::OwnedFd;

use reaper_spec::{ContainerId, ExecId, Exit, ProcessIdentity, ProcessSpec, Status};
use reaper_state::ContainerDir;
use serde::{Deserialize, Serialize};

use super::config::ContainerConfig;
use crate::{
    cgroup::{CgroupStats, EXEC_LEAF},
    io::StdioRequest,
    procfs::Usage,
};

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

/// A request to create a container.
#[derive(Debug)]
#[non_exhaustive]
pub struct CreateRequest {
    /// The folder for the monitor's socket and the exit record; it exists.
    pub dir: ContainerDir,
    /// The container.
    pub container: ContainerConfig,
}

impl CreateRequest {
    /// A request to create `container`, whose folder is `dir`.
    pub fn new(dir: ContainerDir, container: ContainerConfig) -> Self {
        Self { dir, container }
    }
}

/// What an exec'd process is to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExecRequest {
    /// The process.
    pub process: ProcessSpec,
    /// The whole of OCI's `process` object that `process` was read from, as JSON, for executors
    /// that pass it on to an OCI runtime: properties that `process` has no field for, such as
    /// capabilities, are taken from here.
    pub process_json: Option<String>,
    /// Where its streams go.
    pub stdio: StdioRequest,
    /// Descriptors that it gets from number 3 on.
    pub preserve_fds: Vec<OwnedFd>,
    /// Kill the process and its descendants when the caller's connection closes.
    ///
    /// `reaper-runtime exec` sets this: engines signal the pid of that command and expect the
    /// exec'd process to die with it.
    pub kill_on_disconnect: bool,
}

impl ExecRequest {
    /// A process without streams (`/dev/null`), which outlives the caller's connection.
    pub fn new(process: ProcessSpec) -> Self {
        Self {
            process,
            process_json: None,
            stdio: StdioRequest::default(),
            preserve_fds: Vec::new(),
            kill_on_disconnect: false,
        }
    }

    /// With the JSON that the process was read from.
    #[must_use]
    pub fn with_process_json(mut self, process_json: impl Into<Option<String>>) -> Self {
        self.process_json = process_json.into();
        self
    }

    /// With streams.
    #[must_use]
    pub fn with_stdio(mut self, stdio: StdioRequest) -> Self {
        self.stdio = stdio;
        self
    }

    /// With descriptors from number 3 on.
    #[must_use]
    pub fn with_preserve_fds(mut self, preserve_fds: Vec<OwnedFd>) -> Self {
        self.preserve_fds = preserve_fds;
        self
    }

    /// Whether it is killed when the caller's connection closes.
    #[must_use]
    pub fn with_kill_on_disconnect(mut self, kill_on_disconnect: bool) -> Self {
        self.kill_on_disconnect = kill_on_disconnect;
        self
    }
}

/// A process that was created and waits for its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreatedProcess {
    /// The process. `None` for an exec'd one of an executor that cannot create it without starting
    /// it: it is created when it is started, and [`start`](super::Executor::start) names it.
    pub process: Option<ProcessIdentity>,
    /// The monitor that waits for it; `None` if the executor has no monitors.
    pub monitor: Option<ProcessIdentity>,
    /// Warnings about the container's view of the filesystem. From a monitor of an earlier version
    /// they have what was refused as well.
    pub warnings: Vec<String>,
    /// What its spec asked for and could not be done, but is not an error, and what was left, for
    /// example an OOM adjustment that the kernel refused.
    #[serde(default)]
    pub refused: Vec<String>,
}

impl CreatedProcess {
    /// A process that waits for its start, without a monitor and without warnings.
    pub fn new(process: impl Into<Option<ProcessIdentity>>) -> Self {
        Self {
            process: process.into(),
            monitor: None,
            warnings: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// With the monitor that waits for it.
    #[must_use]
    pub fn with_monitor(mut self, monitor: impl Into<Option<ProcessIdentity>>) -> Self {
        self.monitor = monitor.into();
        self
    }

    /// With warnings about the container's view of the filesystem.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// With what its spec asked for and could not be done.
    #[must_use]
    pub fn with_refused(mut self, refused: Vec<String>) -> Self {
        self.refused = refused;
        self
    }
}

/// What a container is doing, as far as its executor knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerState {
    /// What it is doing.
    pub status: Status,
    /// Its init process, where the executor still knows it.
    pub process: Option<ProcessIdentity>,
    /// Who waits on the init process, likewise.
    pub monitor: Option<ProcessIdentity>,
    /// Its end, from `stopped` on.
    pub exit: Option<Exit>,
}

impl ContainerState {
    /// A container of which nothing but its status is known.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            process: None,
            monitor: None,
            exit: None,
        }
    }

    /// A container that has ended with `exit`.
    pub fn stopped(exit: Exit) -> Self {
        Self::new(Status::Stopped).with_exit(exit)
    }

    /// With its init process.
    #[must_use]
    pub fn with_process(mut self, process: impl Into<Option<ProcessIdentity>>) -> Self {
        self.process = process.into();
        self
    }

    /// With the process that waits on its init process.
    #[must_use]
    pub fn with_monitor(mut self, monitor: impl Into<Option<ProcessIdentity>>) -> Self {
        self.monitor = monitor.into();
        self
    }

    /// With its end.
    #[must_use]
    pub fn with_exit(mut self, exit: impl Into<Option<Exit>>) -> Self {
        self.exit = exit.into();
        self
    }
}

/// A process in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its pid in the host's pid namespace.
    pub pid: u32,
    /// The exec that it is, or that it comes from, where that is known.
    pub exec: Option<ExecId>,
}

impl ProcessInfo {
    /// A process of which it is not known which exec it comes from, or the init process.
    pub fn new(pid: u32) -> Self {
        Self { pid, exec: None }
    }

    /// With the exec that it is, or that it comes from.
    #[must_use]
    pub fn with_exec(mut self, exec: impl Into<Option<ExecId>>) -> Self {
        self.exec = exec.into();
        self
    }

    /// A process in a leaf of the container's cgroup: `init`, or `exec-ID`, perhaps with `~` and a
    /// number.
    pub(crate) fn of_leaf(pid: u32, leaf: &str) -> Self {
        let exec = leaf
            .strip_prefix(EXEC_LEAF)
            .and_then(|name| ExecId::new(name.split_once('~').map_or(name, |(name, _)| name)).ok());
        Self { pid, exec }
    }
}

/// What a container uses, added up over its processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// The accounting of its cgroups, from which the figures above are where they have them. `None`
    /// without cgroups: the figures are then added up over the processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<Box<CgroupStats>>,
}

impl Stats {
    /// Nothing is used.
    pub fn new() -> Self {
        Self::default()
    }

    /// With CPU time in user mode.
    #[must_use]
    pub fn with_cpu_user_ns(mut self, cpu_user_ns: u64) -> Self {
        self.cpu_user_ns = cpu_user_ns;
        self
    }

    /// With CPU time in the kernel.
    #[must_use]
    pub fn with_cpu_system_ns(mut self, cpu_system_ns: u64) -> Self {
        self.cpu_system_ns = cpu_system_ns;
        self
    }

    /// With memory in use.
    #[must_use]
    pub fn with_memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.memory_bytes = memory_bytes;
        self
    }

    /// With its anonymous part.
    #[must_use]
    pub fn with_memory_anonymous_bytes(mut self, memory_anonymous_bytes: u64) -> Self {
        self.memory_anonymous_bytes = memory_anonymous_bytes;
        self
    }

    /// With processes.
    #[must_use]
    pub fn with_processes(mut self, processes: u64) -> Self {
        self.processes = processes;
        self
    }

    /// With threads.
    #[must_use]
    pub fn with_threads(mut self, threads: u64) -> Self {
        self.threads = threads;
        self
    }

    /// With the accounting of its cgroups.
    #[must_use]
    pub fn with_cgroups(mut self, cgroups: impl Into<Option<Box<CgroupStats>>>) -> Self {
        self.cgroups = cgroups.into();
        self
    }

    /// Replaces the figures of processes by those of the cgroups, which also count what has exited
    /// and the page cache.
    pub(crate) fn set_cgroups(&mut self, cgroups: CgroupStats) {
        if let Some(cpu) = &cgroups.cpu {
            (self.cpu_user_ns, self.cpu_system_ns) = (cpu.user_ns, cpu.system_ns);
        }
        if let Some(memory) = &cgroups.memory {
            self.memory_bytes = memory.memory.usage;
            self.memory_anonymous_bytes = memory.anonymous();
        }
        if let Some(pids) = &cgroups.pids {
            self.threads = pids.current;
        }
        self.cgroups = Some(Box::new(cgroups));
    }

    /// Adds what one process uses.
    pub(crate) fn add(&mut self, usage: &Usage) {
        self.cpu_user_ns += usage.cpu_user_ns;
        self.cpu_system_ns += usage.cpu_system_ns;
        self.memory_bytes += usage.rss_bytes;
        self.memory_anonymous_bytes += usage.anonymous_bytes;
        self.threads += usage.threads;
        self.processes += 1;
    }
}
