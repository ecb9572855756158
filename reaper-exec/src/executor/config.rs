//! What a container is to be, and what its monitor does.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf};

use reaper_overlay::ViewRequest;
use reaper_spec::{
    CgroupMode, CgroupsPath, ContainerId, Hooks, NamespacePath, ProcessSpec, Resources, Seccomp,
};
use serde::{Deserialize, Serialize};

use crate::{io::StdioRequest, signal::Signal};

/// A container to be created.
#[derive(Debug)]
#[non_exhaustive]
pub struct ContainerConfig {
    /// Its id.
    pub id: ContainerId,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its init process.
    pub process: ProcessSpec,
    /// Where its cgroup goes; `None` for `reaper/ID`.
    pub cgroups_path: Option<CgroupsPath>,
    /// What it may use, which is set with [`CgroupMode::Enforce`] alone.
    pub resources: Resources,
    /// The system calls that its processes may make, init and those that are added. Without the
    /// feature `seccomp` of this crate a container that has one is refused.
    pub seccomp: Option<Seccomp>,
    /// The programs that are run at steps of its life. An OCI runtime runs those of the bundle itself.
    pub hooks: Hooks,
    /// The namespaces that its processes are in, init and those that are added; of all others in the host's.
    pub namespaces: Vec<NamespacePath>,
    /// Its processes have a new pid namespace, of which the init process is number 1, and a `/proc` of that;
    /// unless `namespaces` has one. It ends with init, with all that is in it.
    pub new_pid_namespace: bool,
    /// Its init process executes no program: it keeps its new pid namespace for containers that join that, as the
    /// pause process of a pod does. It reaps what they leave, sees no files and has no capabilities, and ends
    /// by SIGTERM and SIGINT that are sent from outside of the namespace. `process` names it.
    pub holds_pids: bool,
    /// It is the sandbox of a pod, which no limit of an [`Engine`](crate::Engine) counts. What its annotations say of
    /// that is only what its bundle claims.
    pub is_sandbox: bool,
    /// The kernel's parameters that are set in them.
    pub sysctls: BTreeMap<String, String>,
    /// What it sees of the filesystem.
    pub view: ViewRequest,
    /// Where its init process's streams go.
    pub stdio: StdioRequest,
    /// Descriptors that its init process gets from number 3 on (`--preserve-fds`).
    pub preserve_fds: Vec<OwnedFd>,
    /// What its monitor does in addition to watching it.
    pub monitor: MonitorOptions,
    /// An OCI runtime, the path of a program or its name in `PATH`, that makes it as with
    /// [`OciExecutor`](crate::OciExecutor); instead of the executor's own, if that has one.
    pub runtime: Option<PathBuf>,
    /// Its annotations, which its hooks and the agent of its seccomp filter are told. An
    /// [`Engine`](crate::Engine) stores them in its record.
    pub annotations: BTreeMap<String, String>,
    /// What an [`Engine`](crate::Engine) stores beside its annotations. Executors ignore it.
    pub notes: BTreeMap<String, String>,
}

impl ContainerConfig {
    /// A container for `process` that has no bundle, no volumes and no streams (`/dev/null`), and
    /// everything else as it is by default. Its fields are there to be changed.
    pub fn new(id: ContainerId, process: ProcessSpec) -> Self {
        Self {
            bundle: PathBuf::from("/"),
            view: ViewRequest::new(id.clone(), process.cwd.clone()),
            id,
            process,
            cgroups_path: None,
            resources: Resources::default(),
            seccomp: None,
            hooks: Hooks::default(),
            namespaces: Vec::new(),
            new_pid_namespace: false,
            holds_pids: false,
            is_sandbox: false,
            sysctls: BTreeMap::new(),
            stdio: StdioRequest::default(),
            preserve_fds: Vec::new(),
            monitor: MonitorOptions::default(),
            runtime: None,
            annotations: BTreeMap::new(),
            notes: BTreeMap::new(),
        }
    }

    /// With a bundle, absolute.
    #[must_use]
    pub fn with_bundle(mut self, bundle: PathBuf) -> Self {
        self.bundle = bundle;
        self
    }

    /// With what it sees of the filesystem.
    #[must_use]
    pub fn with_view(mut self, view: ViewRequest) -> Self {
        self.view = view;
        self
    }

    /// With streams of its init process.
    #[must_use]
    pub fn with_stdio(mut self, stdio: StdioRequest) -> Self {
        self.stdio = stdio;
        self
    }

    /// With limits.
    #[must_use]
    pub fn with_resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// With the place of its cgroup.
    #[must_use]
    pub fn with_cgroups_path(mut self, cgroups_path: impl Into<Option<CgroupsPath>>) -> Self {
        self.cgroups_path = cgroups_path.into();
        self
    }

    /// With what its monitor does in addition to watching it.
    #[must_use]
    pub fn with_monitor(mut self, monitor: MonitorOptions) -> Self {
        self.monitor = monitor;
        self
    }

    /// With an OCI runtime that makes it.
    #[must_use]
    pub fn with_runtime(mut self, runtime: impl Into<Option<PathBuf>>) -> Self {
        self.runtime = runtime.into();
        self
    }

    /// With annotations.
    #[must_use]
    pub fn with_annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.annotations = annotations;
        self
    }
}

/// What a monitor does in addition to watching its container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MonitorOptions {
    /// The monitor exits in the same way as the init process, code and signal, and passes on the
    /// signals that it gets to it. An engine that waits for the pid in `--pid-file` gets the exit
    /// of the container so. Off by default.
    #[serde(rename = "mirror_exit")]
    pub propagate_exit: bool,
    /// Whether the container gets cgroups of its own, by which all that it leaves is killed, and
    /// whether they limit it. Without them killing is best effort, and there are no limits. By
    /// default limits are enforced.
    #[serde(rename = "without_cgroup", with = "without_cgroup")]
    pub cgroups: CgroupMode,
    /// The file to which the monitor logs errors that no request waits for, for example that a
    /// mount point could not be removed. By default they are not logged.
    pub log: Option<PathBuf>,
    /// The container is killed if the program that creates it ends before it has started it. Off by
    /// default: a container that was created waits for any program's start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill_unless_started: bool,
    /// What the container takes over from the program that called for it. By default nothing.
    #[serde(default)]
    pub inherit: Inherited,
}

impl MonitorOptions {
    /// What is so by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the monitor exits as the init process does.
    #[must_use]
    pub fn with_propagate_exit(mut self, propagate_exit: bool) -> Self {
        self.propagate_exit = propagate_exit;
        self
    }

    /// What cgroups are for.
    #[must_use]
    pub fn with_cgroups(mut self, cgroups: CgroupMode) -> Self {
        self.cgroups = cgroups;
        self
    }

    /// With a file for errors that no request waits for.
    #[must_use]
    pub fn with_log(mut self, log: impl Into<Option<PathBuf>>) -> Self {
        self.log = log.into();
        self
    }

    /// Whether it is killed with the program that creates it and has not started it.
    #[must_use]
    pub fn with_kill_unless_started(mut self, kill_unless_started: bool) -> Self {
        self.kill_unless_started = kill_unless_started;
        self
    }

    /// With what is taken over from the caller.
    #[must_use]
    pub fn with_inherit(mut self, inherit: Inherited) -> Self {
        self.inherit = inherit;
        self
    }
}

/// What a container takes over from the program that called for it, as what a shell starts does.
///
/// Never: its environment and working directory, which a process has from its spec alone, its open
/// files, its controlling terminal, the signals that it blocks, and its securebits (capabilities(7)).
/// Always, as with other runtimes, what no process gets rid of, `no_new_privs`, seccomp filters, the
/// bounding set of capabilities, and the resource limits that the spec does not name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inherited {
    /// The umask of processes whose spec names none; 022 by default.
    pub umask: Option<u32>,
    /// Its nice value, scheduling policy, I/O priority, processors and personality(2).
    pub scheduling: bool,
    /// Signals that the init process ignores. Exec'd processes ignore none.
    pub ignored_signals: Vec<Signal>,
    /// Its session keyring (session-keyring(7)); by default the container gets a new one.
    pub session_keyring: bool,
}

impl Inherited {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the umask of processes whose spec names none.
    #[must_use]
    pub fn with_umask(mut self, umask: impl Into<Option<u32>>) -> Self {
        self.umask = umask.into();
        self
    }

    /// Whether with its nice value, scheduling policy, I/O priority, processors and personality(2).
    #[must_use]
    pub fn with_scheduling(mut self, scheduling: bool) -> Self {
        self.scheduling = scheduling;
        self
    }

    /// With signals that the init process ignores.
    #[must_use]
    pub fn with_ignored_signals(mut self, ignored_signals: Vec<Signal>) -> Self {
        self.ignored_signals = ignored_signals;
        self
    }

    /// Whether with its session keyring.
    #[must_use]
    pub fn with_session_keyring(mut self, session_keyring: bool) -> Self {
        self.session_keyring = session_keyring;
        self
    }
}

/// Monitors of earlier versions read and write whether there is to be no cgroup.
mod without_cgroup {
    use reaper_spec::CgroupMode;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Switch(bool),
        Word(CgroupMode),
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(super) fn serialize<S: Serializer>(mode: &CgroupMode, to: S) -> Result<S::Ok, S::Error> {
        let form = match mode {
            CgroupMode::Enforce => Form::Switch(false),
            CgroupMode::Off => Form::Switch(true),
            other => Form::Word(*other),
        };
        form.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CgroupMode, D::Error> {
        Ok(match Form::deserialize(from)? {
            Form::Switch(false) => CgroupMode::Enforce,
            Form::Switch(true) => CgroupMode::Off,
            Form::Word(mode) => mode,
        })
    }
}
