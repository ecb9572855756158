//! The configuration as values, with their defaults.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    container_spec::{ContainerSpec, is_engines_sysctl},
    hooks::Hooks,
    namespaces::{NamespaceKind, NamespacePath},
    overlay_scope::OverlayScope,
    path_hash::DEFAULT_STATE_ROOT,
    policy::PolicyConfig,
};

/// The node's configuration, with every default filled in.
///
/// It is put together from several sources, a later one winning over an earlier:
/// the file and the environment ([`Config::load`]), the runtime's options in containerd's
/// configuration ([`Config::apply_options`], [`Config::apply_file`]), what a pod may change
/// ([`Config::apply_annotations`]), and the flags of a command line, which set fields.
///
/// serde's form is for handing a whole configuration to another process. It is not how files are
/// read: that has better messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the state: containers, sockets. `REAPER_RUNTIME_ROOT`, default `/run/reaper`.
    pub state_root: PathBuf,
    /// Which store keeps the state.
    pub store: StoreKind,
    /// An OCI runtime binary to drive instead of running on the host. `REAPER_RUNTIME_PATH`.
    pub runtime_path: Option<PathBuf>,
    /// The overlay over the node's root.
    pub overlay: OverlayConfig,
    /// Where the logs go.
    pub log: LogConfig,
    /// Whose `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname` a workload sees.
    pub dns: DnsMode,
    /// Whose network a workload uses.
    pub network: NetworkMode,
    /// Which processes a workload sees.
    pub pid: PidMode,
    /// What is done with the cgroups of workloads.
    pub cgroups: CgroupMode,
    /// In which cgroup the shim and its monitors are. `REAPER_MONITOR_CGROUP`.
    pub monitor_cgroup: MonitorCgroupMode,
    /// Which of the node's devices workloads may open. As a policy it is set in configuration files
    /// only.
    pub devices: DeviceMode,
    /// Whether the hooks of bundles are run.
    pub hooks: HookMode,
    /// What becomes of the container's image.
    pub image: ImageMode,
    /// What pods may change by annotation.
    pub annotations: AnnotationPolicy,
    /// What the node admin has decided for all containers.
    pub policy: PolicyConfig,
}

/// The overlay over the node's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverlayConfig {
    /// Whether workloads run over an overlay. `REAPER_OVERLAY_ENABLED`, default true.
    pub enabled: bool,
    /// Where the overlays' upper layers are. `REAPER_OVERLAY_BASE`, default `/run/reaper/overlay`.
    pub base: PathBuf,
    /// Who shares an overlay.
    pub scope: OverlayScope,
    /// The most that the overlays may hold, in bytes, where Reaper makes the base's filesystem.
    pub size: Option<u64>,
    /// The most that each scope may hold, in bytes: a tmpfs of its own, or where the base is on a disk a
    /// project quota. `REAPER_OVERLAY_SIZE_PER_SCOPE`, default none.
    // An older program that deletes a container reads its record, and refuses fields that it does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_per_scope: Option<u64>,
    /// Which of the host's secrets are hidden.
    pub masks: MaskConfig,
    /// Files, directories and sockets of the host that workloads see as they are, writable.
    pub host_paths: Vec<PathBuf>,
    /// Mounts of the host that may be writable or missing for workloads, where they can neither be
    /// overlaid nor be made read-only. Any other such mount is an error.
    pub unprotected: Vec<PathBuf>,
    /// Whether a scope is removed, with all that was written in it, when its last member ends.
    pub remove_with_last: bool,
    /// Which scopes without members are kept.
    pub keep: RetentionConfig,
}

/// Which scopes without members are kept. Without limits all are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Those that were used within this time.
    #[serde(rename = "age")]
    pub max_age: Option<Duration>,
    /// This many, the last used ones.
    #[serde(rename = "count")]
    pub max_count: Option<usize>,
}

/// Which of the host's files are hidden from workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskConfig {
    /// Instead of the built-in list.
    pub replace: Option<Vec<String>>,
    /// In addition to the list; globs.
    pub add: Vec<String>,
    /// Exceptions from the list; globs.
    pub except: Vec<String>,
}

/// Where the logs go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// The shim's log file. `REAPER_SHIM_LOG`; by default only warnings, to containerd.
    pub shim: Option<PathBuf>,
    /// The command line's and the monitors' log file. `REAPER_RUNTIME_LOG`.
    pub runtime: Option<PathBuf>,
    /// The folder for the output of commands that the command line runs detached.
    /// `REAPER_LOG_OUTPUT`; by default `/var/log/reaper`, without root one in the user's home.
    pub output: Option<PathBuf>,
    /// What is logged: a directive of `tracing`'s `EnvFilter`.
    pub level: Option<String>,
}

/// Which store keeps the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StoreKind {
    /// A file per container.
    #[default]
    File,
    /// One SQLite database (needs the feature `sqlite` of `reaper-state`).
    Sqlite,
}

impl StoreKind {
    /// Every kind.
    pub const ALL: &[Self] = &[Self::File, Self::Sqlite];

    /// The word for it in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Sqlite => "sqlite",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is done with the cgroups of workloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CgroupMode {
    /// Each workload has cgroups of its own, with the limits that its bundle asks for. A limit that
    /// the node cannot set is an error.
    #[default]
    Enforce,
    /// Each workload has cgroups of its own, which account for it, and by which it is frozen and
    /// killed. No limits are set.
    Track,
    /// None is made, and no limits are set.
    Off,
}

impl CgroupMode {
    /// The word for it in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Track => "track",
            Self::Off => "off",
        }
    }
}

/// In which cgroup a pod's shim and monitors are, so who is charged for what they use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MonitorCgroupMode {
    /// That of containerd, which starts them: the node is charged.
    #[default]
    Node,
    /// One of their own in the pod's: the pod is charged, and none of its containers.
    Pod,
}

impl MonitorCgroupMode {
    /// The word for it in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
        }
    }
}

/// Which of the node's devices a workload may open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceMode {
    /// Those that its spec allows in `linux.resources.devices`, and the default ones.
    #[default]
    Spec,
    /// All that its user may open on the node.
    Node,
}

impl DeviceMode {
    /// Changes a container to what the node's admin says of its devices. Returns what of the spec is
    /// not applied, in words for a log.
    pub fn apply_to_container(self, container: &mut ContainerSpec) -> Option<&'static str> {
        if self == Self::Spec {
            return None;
        }
        let rules = std::mem::take(&mut container.resources.devices);
        (!rules.is_empty())
            .then_some("the device rules of the spec are not applied: devices is \"node\"")
    }
}

/// Whose name resolution a workload sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DnsMode {
    /// What the spec mounts on them, if it does.
    #[default]
    #[serde(rename = "pod", alias = "spec")]
    Spec,
    /// The node's.
    Host,
}

/// Whether the hooks of bundles are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HookMode {
    /// Those that the spec has.
    #[default]
    Spec,
    /// None.
    Off,
}

impl HookMode {
    /// Changes a container to what the mode says of it. Returns what of the spec is not applied, in words for
    /// a log.
    pub fn apply(self, container: &mut ContainerSpec) -> Option<&'static str> {
        let is_ignored = self == Self::Off && !container.hooks.is_empty();
        is_ignored.then(|| {
            container.hooks = Hooks::default();
            "the hooks of the spec are not run: hooks is \"off\""
        })
    }
}

/// Whose network a workload uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NetworkMode {
    /// That which the spec names by path, else the node's.
    #[default]
    Spec,
    /// The node's.
    Host,
}

impl NetworkMode {
    /// Changes a container to what the mode says of it. Returns what of the spec is not applied, in words for
    /// a log.
    pub fn apply(self, container: &mut ContainerSpec) -> Option<String> {
        let is_network = |joined: &NamespacePath| joined.kind == NamespaceKind::Network;
        let is_ignored = self == Self::Host && container.namespaces.iter().any(is_network);
        is_ignored.then(|| {
            container.namespaces.retain(|joined| !is_network(joined));
            let names = container.sysctls.keys().map(String::as_str);
            let skipped: Vec<_> = names.filter(|name| is_engines_sysctl(name)).collect();
            let unset = match skipped.as_slice() {
                [] => String::new(),
                names => format!(", and {} not set", names.join(" and ")),
            };
            format!("the network of the spec is not joined{unset}: network is \"host\"")
        })
    }
}

/// Which processes a workload sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PidMode {
    /// The node's, unless the spec names a pid namespace by path.
    #[default]
    Host,
    /// Its own, where the spec has a pid namespace.
    Private,
}

impl PidMode {
    /// Changes a container to what the mode says of it.
    pub fn apply(self, container: &mut ContainerSpec) {
        container.new_pid_namespace &= self == Self::Private;
    }
}

/// What becomes of the container's image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ImageMode {
    /// Nothing: only its name has a use.
    #[default]
    #[serde(rename = "ignore")]
    None,
    /// What it has and the node lacks is visible at its own path.
    #[serde(rename = "beneath")]
    Lower,
    /// Its root is visible, read-only, at a path named in `REAPER_IMAGE_ROOT`.
    #[serde(rename = "at")]
    MountAt,
}

/// What pods may change by annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AnnotationPolicy {
    /// The keys, without their prefix `reaper.runtime/`.
    pub allow: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_root: DEFAULT_STATE_ROOT.into(),
            store: StoreKind::default(),
            runtime_path: None,
            overlay: OverlayConfig::default(),
            log: LogConfig::default(),
            dns: DnsMode::default(),
            network: NetworkMode::default(),
            pid: PidMode::default(),
            cgroups: CgroupMode::default(),
            monitor_cgroup: MonitorCgroupMode::default(),
            devices: DeviceMode::default(),
            hooks: HookMode::default(),
            image: ImageMode::default(),
            annotations: AnnotationPolicy::default(),
            policy: PolicyConfig::default(),
        }
    }
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            base: "/run/reaper/overlay".into(),
            scope: OverlayScope::Node,
            size: None,
            size_per_scope: None,
            masks: MaskConfig::default(),
            host_paths: Vec::new(),
            unprotected: Vec::new(),
            remove_with_last: false,
            keep: RetentionConfig::default(),
        }
    }
}
