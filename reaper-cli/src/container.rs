//! From a bundle or a command line to what an engine is asked for.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use reaper_exec::{
    ContainerConfig, MonitorOptions,
    engine::{ENGINE_PREFIX, SCOPE_ANNOTATION},
    io::StdioRequest,
};
use reaper_overlay::{Scope, ViewRequest};
use reaper_spec::{
    Bundle, Config, ContainerId, ContainerSpec, CriAnnotations, FileRestrictions, Hooks,
    ProcessSpec, Resources,
};
use reaper_state::Record;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    settings::{absolute, lasting, utf8},
    sockets::Sockets,
};

/// Annotations that this program adds to its records, which [`visible`] takes out again.
const OWN_PREFIX: &str = "reaper.cli/";
/// The program gets the streams of the call of `start`.
const STREAMS_AT_START: &str = "reaper.cli/streams-at-start";
/// The init process, of a container that has no bundle.
const PROCESS: &str = "reaper.cli/process";
/// The file that its outputs go to.
const LOG: &str = "reaper.cli/log";
/// The bundle's root filesystem, where it is not called so.
const ROOTFS: &str = "reaper.cli/rootfs";

/// A container to be made of a bundle.
pub(crate) fn of_bundle(
    config: &Config,
    id: ContainerId,
    bundle: &Path,
) -> Result<ContainerConfig> {
    let bundle = Bundle::load(&lasting("--bundle", absolute("--bundle", bundle)?)?)?;
    let path = bundle.path().to_owned();
    let mut workload = bundle.into_container_spec();
    let rootfs = workload.rootfs.as_ref().and_then(|rootfs| rootfs.to_str());
    let rootfs = rootfs.map(|rootfs| (ROOTFS.to_owned(), rootfs.to_owned()));
    let mut config = config.clone();
    config.apply_annotations(&workload.annotations)?;
    if config.runtime_path.is_none() {
        if let Some(ignored) = config.network.apply(&mut workload) {
            tracing::warn!("container {id}: {ignored}");
        }
        config.pid.apply(&mut workload);
        // Without root a container has users of its own anyway, and its root is this one.
        workload.check_host(!nix::unistd::geteuid().is_root())?;
    }
    let mut new = of_workload(&config, id, path, workload)?;
    new.notes.extend(rootfs);
    Ok(new)
}

/// A container to be made of a command. Its bundle is `dir`, which holds no `config.json`: what
/// later calls need of it is in its record.
pub(crate) fn of_process(
    config: &Config,
    id: ContainerId,
    dir: &Path,
    mut process: ProcessSpec,
) -> Result<ContainerConfig> {
    process.validate()?;
    config.policy.limit_capabilities(&mut process);
    utf8("the working directory", &process.cwd)?;
    let json = serde_json::to_string(&process).map_err(|error| Error::Io {
        operation: "write a process".into(),
        source: error.into(),
    })?;
    let mut workload = ContainerSpec {
        process,
        rootfs: None,
        mounts: Vec::new(),
        restrictions: FileRestrictions::default(),
        devices: Vec::new(),
        rootfs_propagation: None,
        cgroups_path: None,
        resources: Resources::default(),
        seccomp: None,
        hooks: Hooks::default(),
        namespaces: Vec::new(),
        new_pid_namespace: true,
        sysctls: BTreeMap::new(),
        annotations: BTreeMap::new(),
        unsupported: Vec::new(),
    };
    config.pid.apply(&mut workload);
    let mut new = of_workload(config, id, dir.to_owned(), workload)?;
    new.notes.insert(PROCESS.to_owned(), json);
    Ok(new)
}

fn of_workload(
    config: &Config,
    id: ContainerId,
    bundle: PathBuf,
    mut workload: ContainerSpec,
) -> Result<ContainerConfig> {
    for ignored in config.apply_to_container(&mut workload)? {
        tracing::warn!("container {id}: {ignored}");
    }
    let sysctls = workload.network_sysctls();
    let mut view = ViewRequest::new(id.clone(), workload.process.cwd.clone())
        .with_pod(&CriAnnotations::from_annotations(&workload.annotations));
    view.overlay.clone_from(&config.overlay);
    view.dns = config.dns;
    view.image = config.image;
    view.rootfs = workload.rootfs;
    view.mounts = workload.mounts;
    view.allowed_mounts = config.policy.allowed_mounts();
    view.restrictions = workload.restrictions;
    view.devices = workload.devices;
    view.root_propagation = workload.rootfs_propagation;
    let monitor = MonitorOptions::new()
        .with_cgroups(config.cgroups)
        .with_log(config.log.runtime.clone());
    let mut new = ContainerConfig::new(id, workload.process)
        .with_bundle(bundle)
        .with_view(view)
        .with_cgroups_path(workload.cgroups_path)
        .with_resources(workload.resources)
        .with_monitor(monitor)
        .with_annotations(workload.annotations);
    new.seccomp = workload.seccomp;
    new.hooks = workload.hooks;
    new.sysctls = sysctls;
    new.namespaces = workload.namespaces;
    new.new_pid_namespace = workload.new_pid_namespace;
    Ok(new)
}

/// What the caller of this program adds to a container.
#[derive(Debug, Default)]
pub(crate) struct StdioSource {
    /// Where its streams go.
    pub(crate) stdio: StdioRequest,
    /// Its descriptors from 3 on.
    pub(crate) preserved: Vec<OwnedFd>,
    /// The sockets among them, see [`Sockets`].
    pub(crate) sockets: Sockets,
    /// Its monitor ends as it does, for who waits for the pid in `--pid-file`.
    pub(crate) propagate_exit: bool,
    /// It has the session keyring of this program's caller.
    pub(crate) session_keyring: bool,
}

impl StdioSource {
    pub(crate) fn apply(self, new: &mut ContainerConfig) {
        new.stdio = self.stdio;
        new.preserve_fds = self.preserved;
        self.sockets.add_to(&mut new.process);
        new.monitor.propagate_exit = self.propagate_exit;
        new.monitor.inherit.session_keyring = self.session_keyring;
    }
}

/// Notes that the program of `new` is to get the streams of `start`.
pub(crate) fn defer_streams(new: &mut ContainerConfig) {
    new.notes
        .insert(STREAMS_AT_START.to_owned(), "true".to_owned());
}

/// Whether [`defer_streams`] was called when the container was made.
pub(crate) fn streams_deferred(record: &Record) -> bool {
    record.annotations.contains_key(STREAMS_AT_START)
}

/// Notes the file that the outputs of `new` go to.
pub(crate) fn set_log(new: &mut ContainerConfig, path: &str) {
    new.notes.insert(LOG.to_owned(), path.to_owned());
}

/// What [`set_log`] noted when the container was made.
pub(crate) fn log_of(record: &Record) -> Option<&Path> {
    record.annotations.get(LOG).map(Path::new)
}

/// The init process of a container that exists, for processes that are added to it.
pub(crate) fn init_process(record: &Record) -> Result<ProcessSpec> {
    match record.annotations.get(PROCESS) {
        Some(json) => serde_json::from_str(json).map_err(|error| Error::Io {
            operation: format!("read the process of container {}", record.id),
            source: error.into(),
        }),
        None => Ok(Bundle::load(&record.bundle)?.into_container_spec().process),
    }
}

/// The overlay that a container runs over, if it does.
pub(crate) fn scope(record: &Record) -> Option<Scope> {
    record.annotations.get(SCOPE_ANNOTATION)?.parse().ok()
}

/// What a container is in Kubernetes, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PodNames {
    /// The pod, as NAMESPACE/NAME.
    pub(crate) pod: String,
    /// The container in the pod. The pod's sandbox has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<String>,
}

impl PodNames {
    /// NAMESPACE/POD/CONTAINER, as command lines have it; of a sandbox without the container.
    pub(crate) fn line(&self) -> String {
        match &self.container {
            Some(container) => format!("{}/{container}", self.pod),
            None => self.pod.clone(),
        }
    }
}

/// The pod and the container that Kubernetes made this one for, as its annotations say.
pub(crate) fn pod_names(record: &Record) -> Option<PodNames> {
    let cri = CriAnnotations::from_annotations(&record.annotations);
    let name = cri.sandbox_name?;
    Some(PodNames {
        pod: match cri.sandbox_namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        },
        container: cri.container_name,
    })
}

/// The root filesystem that the bundle has, absolute, and `/` for a command that has no bundle. It is
/// where engines prepare one: the process itself sees this machine's root.
pub(crate) fn rootfs(record: &Record) -> PathBuf {
    match record.annotations.get(ROOTFS) {
        Some(path) => PathBuf::from(path),
        None if record.annotations.contains_key(PROCESS) => PathBuf::from("/"),
        // What containerd calls it, which makes no note.
        None => record.bundle.join("rootfs"),
    }
}

/// The annotations that are not this program's own.
pub(crate) fn visible(record: &Record) -> BTreeMap<&str, &str> {
    let own = [OWN_PREFIX, ENGINE_PREFIX, SCOPE_ANNOTATION];
    record
        .annotations
        .iter()
        .filter(|(key, _)| !own.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}
