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
}

/// What a monitor does in addition to watching its container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a container takes over from the program that called for it, as what a shell starts does.
///
/// Never: its environment and working directory, which a process has from its spec alone, its open
/// files, its controlling terminal, the signals that it blocks, and its securebits (capabilities(7)).
/// Always, as with other runtimes, what no process gets rid of, `no_new_privs`, seccomp filters, the
/// bounding set of capabilities, and the resource limits that the spec does not name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
