//! A process to be run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A process to be run, validated: what OCI's `process` object says, as far as it has a meaning
/// for a process of the host.
///
/// Invariants of every value that this crate makes: `args` is not empty and `args[0]` neither;
/// no string holds a NUL byte; `cwd` is absolute; every entry of `env` has the form `KEY=VALUE`
/// with a non-empty key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The argument vector. `args[0]` without a slash is looked up in the process's own `PATH`.
    pub args: Vec<String>,
    /// The working directory, absolute, in the process's view of the filesystem.
    pub cwd: PathBuf,
    /// The whole environment, as `KEY=VALUE`. Nothing is inherited.
    pub env: Vec<String>,
    /// Whether the process gets a controlling terminal.
    #[serde(default)]
    pub terminal: bool,
    /// The terminal's first size, if it was named.
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    /// Whom to run as. `None` keeps the runtime's identity and its groups.
    #[serde(default)]
    pub user: Option<User>,
    /// Resource limits to set, see setrlimit(2).
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// The OOM killer's adjustment, -1000 to 1000. `None` keeps the runtime's.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Whether to set `no_new_privs` (prctl(2), `PR_SET_NO_NEW_PRIVS`).
    #[serde(default)]
    pub no_new_privileges: bool,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// The file mode creation mask. `None` keeps the runtime's.
    #[serde(default)]
    pub umask: Option<u32>,
    /// The supplementary groups; the process has these and no others.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The soft limit; [`u64::MAX`] is no limit.
    pub soft: u64,
    /// The hard limit; [`u64::MAX`] is no limit.
    pub hard: u64,
}

/// The resources of setrlimit(2), written as OCI writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is described in setrlimit(2)")]
pub enum Resource {
    #[serde(rename = "RLIMIT_AS")]
    AddressSpace,
    #[serde(rename = "RLIMIT_CORE")]
    Core,
    #[serde(rename = "RLIMIT_CPU")]
    Cpu,
    #[serde(rename = "RLIMIT_DATA")]
    Data,
    #[serde(rename = "RLIMIT_FSIZE")]
    FileSize,
    #[serde(rename = "RLIMIT_LOCKS")]
    Locks,
    #[serde(rename = "RLIMIT_MEMLOCK")]
    LockedMemory,
    #[serde(rename = "RLIMIT_MSGQUEUE")]
    MessageQueue,
    #[serde(rename = "RLIMIT_NICE")]
    Nice,
    #[serde(rename = "RLIMIT_NOFILE")]
    OpenFiles,
    #[serde(rename = "RLIMIT_NPROC")]
    Processes,
    #[serde(rename = "RLIMIT_RSS")]
    ResidentSet,
    #[serde(rename = "RLIMIT_RTPRIO")]
    RealtimePriority,
    #[serde(rename = "RLIMIT_RTTIME")]
    RealtimeTime,
    #[serde(rename = "RLIMIT_SIGPENDING")]
    PendingSignals,
    #[serde(rename = "RLIMIT_STACK")]
    Stack,
}
