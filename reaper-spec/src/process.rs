//! A process to be run.

mod capabilities;
mod check;
mod labels;
pub(crate) mod parse;
mod resource;
pub(crate) mod scheduling;
pub(crate) mod words;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::capabilities::Capabilities;
pub(crate) use self::check::check_env;
pub use self::labels::SecurityLabels;
pub use self::resource::{Resource, UnknownResource};
pub use self::scheduling::{
    CpuAffinity, IoClass, IoPriority, Scheduler, SchedulerFlag, SchedulerPolicy, Scheduling,
};
use crate::{
    error::{Error, Invalid, Origin},
    json::At,
};

/// A process to be run, validated: what OCI's `process` object says, as far as it has a meaning
/// for a process of the host.
///
/// Invariants of every value that this crate makes: `args` is not empty and `args[0]` neither;
/// no string holds a NUL byte; `cwd` is absolute; every entry of `env` has the form `KEY=VALUE`
/// with a non-empty key; `oom_score_adj` and the umask are in their ranges; no id is the kernel's
/// "unchanged" (4294967295); each resource is limited once, its soft limit at most the hard one.
/// Deserialising checks them too. Who fills the fields by hand calls
/// [`validate`](Self::validate).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ProcessSpec {
    /// The argument vector. `args[0]` without a slash is looked up in the process's own `PATH`.
    pub args: Vec<String>,
    /// The working directory, absolute, in the process's view of the filesystem.
    pub cwd: PathBuf,
    /// The whole environment, as `KEY=VALUE`. Nothing is inherited.
    pub env: Vec<String>,
    /// Whether the process gets a controlling terminal.
    pub terminal: bool,
    /// The terminal's first size, if it was named.
    pub console_size: Option<ConsoleSize>,
    /// Whom to run as. `None` keeps the runtime's identity and its groups.
    pub user: Option<User>,
    /// Resource limits to set, see setrlimit(2).
    pub rlimits: Vec<Rlimit>,
    /// The OOM killer's adjustment, -1000 to 1000. `None` keeps the runtime's.
    pub oom_score_adj: Option<i32>,
    /// Whether to set `no_new_privs` (prctl(2), `PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// The capabilities that the process has. `None` keeps the runtime's, and of a process that is
    /// added to a container those of its init process.
    pub capabilities: Option<Capabilities>,
    /// How it is scheduled.
    #[serde(skip_serializing_if = "crate::is_default")]
    pub scheduling: Scheduling,
    /// What security modules of the kernel confine it by.
    #[serde(skip_serializing_if = "crate::is_default")]
    pub labels: SecurityLabels,
}

impl ProcessSpec {
    /// A process with an empty environment and everything else left to the runtime.
    ///
    /// ```
    /// use reaper_spec::ProcessSpec;
    /// assert!(ProcessSpec::new(["true"], "/").is_ok());
    /// assert!(ProcessSpec::new(["true"], "tmp").is_err(), "a relative working directory");
    /// ```
    ///
    /// # Errors
    /// What is wrong with `args` or `cwd`.
    pub fn new<A: Into<String>>(
        args: impl IntoIterator<Item = A>,
        cwd: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        let process = Self {
            args: args.into_iter().map(Into::into).collect(),
            cwd: cwd.into(),
            env: Vec::new(),
            terminal: false,
            console_size: None,
            user: None,
            rlimits: Vec::new(),
            oom_score_adj: None,
            no_new_privileges: false,
            capabilities: None,
            scheduling: Scheduling::default(),
            labels: SecurityLabels::default(),
        };
        process.validate()?;
        Ok(process)
    }

    /// Takes over what this process's own spec leaves out from `init`, the init process of the
    /// container that it is added to, as runc does: the capabilities, the AppArmor profile, the SELinux
    /// labels, the resource limits if it names none, the umask if it names a user, and how it is
    /// scheduled.
    ///
    /// ```
    /// use reaper_spec::ProcessSpec;
    /// let init = ProcessSpec::parse(br#"{"args": ["sh"], "capabilities": {}}"#)?;
    /// let mut added = ProcessSpec::parse(br#"{"args": ["id"]}"#)?;
    /// added.inherit(&init);
    /// assert_eq!(added.capabilities, init.capabilities);
    /// # Ok::<(), reaper_spec::Error>(())
    /// ```
    pub fn inherit(&mut self, init: &Self) {
        fn or<T: Clone>(own: &mut Option<T>, inits: &Option<T>) {
            if own.is_none() {
                own.clone_from(inits);
            }
        }
        or(&mut self.capabilities, &init.capabilities);
        let (labels, inits) = (&mut self.labels, &init.labels);
        or(&mut labels.apparmor_profile, &inits.apparmor_profile);
        or(&mut labels.selinux_label, &inits.selinux_label);
        or(&mut labels.mount_label, &inits.mount_label);
        let (scheduling, inits) = (&mut self.scheduling, &init.scheduling);
        or(&mut scheduling.io_priority, &inits.io_priority);
        or(&mut scheduling.scheduler, &inits.scheduler);
        or(&mut scheduling.exec_cpu_affinity, &inits.exec_cpu_affinity);
        or(&mut scheduling.personality, &inits.personality);
        if self.rlimits.is_empty() {
            self.rlimits.clone_from(&init.rlimits);
        }
        if let (Some(user), Some(inits)) = (&mut self.user, &init.user) {
            or(&mut user.umask, &inits.umask);
        }
    }

    /// Checks the invariants of [`ProcessSpec`].
    ///
    /// # Errors
    /// The first that is broken, named as OCI names the field.
    pub fn validate(&self) -> Result<(), Error> {
        self.check(At::Root)
            .map_err(|invalid| invalid.of(Origin::Caller))
    }
}

/// The fields of [`ProcessSpec`] as they are deserialised.
#[derive(Deserialize)]
struct Unchecked {
    args: Vec<String>,
    cwd: PathBuf,
    env: Vec<String>,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    console_size: Option<ConsoleSize>,
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    rlimits: Vec<Rlimit>,
    #[serde(default)]
    oom_score_adj: Option<i32>,
    #[serde(default)]
    no_new_privileges: bool,
    #[serde(default)]
    capabilities: Option<Capabilities>,
    #[serde(default)]
    scheduling: Scheduling,
    #[serde(default)]
    labels: SecurityLabels,
}

impl TryFrom<Unchecked> for ProcessSpec {
    type Error = Invalid;

    fn try_from(fields: Unchecked) -> Result<Self, Invalid> {
        let process = Self {
            args: fields.args,
            cwd: fields.cwd,
            env: fields.env,
            terminal: fields.terminal,
            console_size: fields.console_size,
            user: fields.user,
            rlimits: fields.rlimits,
            oom_score_adj: fields.oom_score_adj,
            no_new_privileges: fields.no_new_privileges,
            capabilities: fields.capabilities,
            scheduling: fields.scheduling,
            labels: fields.labels,
        };
        process.check(At::Root)?;
        Ok(process)
    }
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
