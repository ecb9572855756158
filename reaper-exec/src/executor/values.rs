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
pub struct CreateRequest {
    /// The folder for the monitor's socket and the exit record; it exists.
    pub dir: ContainerDir,
    /// The container.
    pub container: ContainerConfig,
}

/// What an exec'd process is to be.
#[derive(Debug)]
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

/// A process that was created and waits for its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a container is doing, as far as its executor knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct ProcessInfo {
    /// Its pid in the host's pid namespace.
    pub pid: u32,
    /// The exec that it is, or that it comes from, where that is known.
    pub exec: Option<ExecId>,
}

impl ProcessInfo {
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
