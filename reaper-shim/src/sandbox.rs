//! Sandbox containers: the pod itself.
//!
//! In the image world a pod's namespaces are kept alive by a process that does nothing but pause.
//! Processes of the host need no such namespaces, so here the sandbox is an entry in the store
//! whose pid is the shim's, and which ends when it is killed.
//!
//! A pid namespace lasts as long as its first process. So where the node's admin has given pods their own, the
//! sandbox of a pod that has not asked for the node's is a container like any other, with a monitor and a process
//! that keeps the namespace.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use reaper_exec::{ContainerConfig, Engine, Executor, Signal, io::StdioRequest, procfs};
use reaper_overlay::{Scope, ViewRequest};
use reaper_spec::{
    ContainerId, ContainerSpec, ContainerType, CriAnnotations, Exit, ExitStatus, Hooks,
    NamespaceKind, NamespacePath, OverlayConfig, ProcessIdentity, ProcessSpec, Status, Timestamp,
};
use reaper_state::{Record, StateStore, VersionedRecord};

use crate::{Error, Result, timeout::blocking};

/// Whether a bundle is a pod's sandbox: as the CRI says, and only where it says nothing, by the
/// pause image's command. A workload may well be called "pause".
pub(crate) fn is_sandbox(annotations: &BTreeMap<String, String>, args: &[String]) -> bool {
    match CriAnnotations::from_annotations(annotations).container_type {
        Some(kind) => kind == ContainerType::Sandbox,
        None => {
            !annotations
                .keys()
                .any(|key| key.starts_with("io.kubernetes.cri."))
                && args.first().is_some_and(|program| program == "/pause")
        }
    }
}

/// How the pause process, had there been one, would have ended by a signal: it exits in order on
/// SIGTERM and SIGINT. `None` if it would have gone on.
pub(crate) fn end_by(signal: Signal) -> Option<ExitStatus> {
    match signal.number() {
        libc_signal::INT | libc_signal::TERM => Some(ExitStatus::Exited { code: 0 }),
        0 => None,
        number if libc_signal::HARMLESS.contains(&number) => None,
        signal => Some(ExitStatus::Signaled {
            signal,
            core: false,
        }),
    }
}

mod libc_signal {
    use nix::sys::signal::Signal as S;

    pub(super) const INT: i32 = S::SIGINT as i32;
    pub(super) const TERM: i32 = S::SIGTERM as i32;
    /// Those whose default is to be ignored, or to stop and continue.
    pub(super) const HARMLESS: [i32; 8] = [
        S::SIGCHLD as i32,
        S::SIGURG as i32,
        S::SIGWINCH as i32,
        S::SIGCONT as i32,
        S::SIGSTOP as i32,
        S::SIGTSTP as i32,
        S::SIGTTIN as i32,
        S::SIGTTOU as i32,
    ];
}

/// The annotation that this crate adds to the record of a sandbox whose pod has an overlay of its
/// own: the view in whose name that is kept, in JSON.
const VIEW: &str = "reaper.shim/view";

/// The annotation that this crate adds to the record of a sandbox: the path of its pod's network, or [`HOST`].
const NETWORK: &str = "reaper.shim/network";

/// What stands for the host's network in a record. Paths of networks are absolute.
const HOST: &str = "host";

/// The annotation that this crate adds to the record of a sandbox whose process keeps the pod's pid namespace.
const HOLDS_PIDS: &str = "reaper.shim/holds-pids";

/// What the process that keeps a pid namespace is called.
const HOLDER: &str = "reaper-pause";

/// What is noted of a sandbox in its record. `view` is what a container of this id would see, `network` the
/// pod's, if it is not the host's.
fn notes(view: &ViewRequest, network: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let mut notes = BTreeMap::new();
    // All other overlays outlive the pod, or go with its containers.
    let pods = |scope: &Scope| !scope.is_container();
    if view.overlay.enabled && matches!(Scope::deleted_with(view), Ok(Some(scope)) if pods(&scope))
    {
        let view = serde_json::to_string(view).map_err(|source| Error::System {
            operation: "write the view of a sandbox",
            source: source.into(),
        })?;
        notes.insert(VIEW.to_owned(), view);
    }
    let network = network.map_or(HOST.to_owned(), |path| path.display().to_string());
    notes.insert(NETWORK.to_owned(), network);
    Ok(notes)
}

/// Makes `new`, the container of a sandbox's bundle, one whose process keeps the pod's pid namespace and does
/// nothing else. `view` and `network` are those of [`create`].
pub(crate) fn hold_pids(
    new: &mut ContainerConfig,
    view: &ViewRequest,
    network: Option<&Path>,
) -> Result<()> {
    new.notes = notes(view, network)?;
    new.notes.insert(HOLDS_PIDS.to_owned(), String::new());
    new.process = ProcessSpec {
        oom_score_adj: new.process.oom_score_adj,
        ..ProcessSpec::new([HOLDER], "/")?
    };
    // It has no files, and nothing of a program.
    new.view = ViewRequest::new(new.id.clone(), "/".into());
    new.view.overlay = OverlayConfig {
        enabled: false,
        ..view.overlay.clone()
    };
    new.seccomp = None;
    new.hooks = Hooks::default();
    // They are set in the joined network by who makes the sandbox.
    new.sysctls = BTreeMap::new();
    new.stdio = StdioRequest::default();
    new.holds_pids = true;
    new.is_sandbox = true;
    Ok(())
}

/// Adds a sandbox to the store, as created. `view` is what a container of this id would see, `network` the
/// pod's, if it is not the host's.
pub(crate) async fn create<S: StateStore + ?Sized + 'static>(
    store: &Arc<S>,
    bundle: PathBuf,
    mut annotations: BTreeMap<String, String>,
    view: &ViewRequest,
    network: Option<&Path>,
) -> Result<ProcessIdentity> {
    let id = view.id.clone();
    annotations.append(&mut notes(view, network)?);
    let me = procfs::identify(std::process::id()).map_err(|source| Error::System {
        operation: "identify this process",
        source,
    })?;
    let mut record = Record::new(id, bundle);
    record.annotations = annotations;
    record.status = Status::Created;
    record.process = Some(me.clone());
    record.monitor = Some(me.clone());
    let store = Arc::clone(store);
    blocking(move || store.create(&record)).await?;
    Ok(me)
}

/// What the record of a pod's sandbox says of the namespaces that the pod's containers join.
#[derive(Default)]
struct PodNamespaces {
    /// The processes by which the CRI names them.
    pids: Vec<u32>,
    /// The path of the network, `None` for the host's.
    network: Option<PathBuf>,
    /// The process that keeps the pid namespace.
    holder: Option<ProcessIdentity>,
    /// Why not all of this is known, by the sandbox.
    unknown: Option<(String, &'static str)>,
}

impl PodNamespaces {
    async fn of<S: StateStore + ?Sized + 'static>(
        store: &Arc<S>,
        cri: CriAnnotations,
    ) -> Result<Self> {
        let mut known = Self {
            pids: vec![std::process::id()],
            ..Self::default()
        };
        let Some(name) = cri.sandbox_id else {
            // What is of no pod means this program's namespaces by this program's pid.
            let is_of_pod = cri.container_type == Some(ContainerType::Container);
            known.unknown = is_of_pod.then(|| (String::new(), "the annotations do not name it"));
            return Ok(known);
        };
        let record = match ContainerId::new(name.as_str()) {
            Ok(id) => find(store, id).await?,
            Err(_) => None,
        };
        let Some(mut record) = record else {
            known.unknown = Some((name, "there is no record of it"));
            return Ok(known);
        };
        known
            .pids
            .extend(record.process.as_ref().map(|process| process.pid));
        match record.annotations.remove(NETWORK) {
            Some(network) if network == HOST => {}
            Some(network) => known.network = Some(network.into()),
            None => {
                let reason = "an earlier version of Reaper has created it, and not recorded that";
                known.unknown = Some((name, reason));
            }
        }
        if record.annotations.contains_key(HOLDS_PIDS) {
            known.holder = record.process;
        }
        Ok(known)
    }

    /// Whether `path` names a namespace of the sandbox. Without its record, any process may be meant.
    fn names(&self, path: &Path) -> bool {
        self.pids.iter().any(|&pid| is_of(path, pid))
            || (self.unknown.is_some() && path.starts_with("/proc"))
    }

    /// The namespace that is joined for one that [`names`](Self::names) the sandbox's; `None` for the host's.
    fn resolve(&self, mut joined: NamespacePath) -> Result<Option<NamespacePath>> {
        let is_joined = matches!(joined.kind, NamespaceKind::Network | NamespaceKind::Pid);
        if let Some((sandbox, reason)) = self.unknown.as_ref().filter(|_| is_joined) {
            return Err(Error::UnknownSandbox {
                namespace: joined.kind,
                sandbox: sandbox.clone(),
                reason,
            });
        }
        match (joined.kind, &self.network, &self.holder) {
            (NamespaceKind::Network, Some(network), _) => joined.path.clone_from(network),
            (NamespaceKind::Pid, _, Some(holder)) => name_process(&mut joined, holder),
            _ => return Ok(None),
        }
        Ok(Some(joined))
    }
}

fn is_of(path: &Path, pid: u32) -> bool {
    path.starts_with(format!("/proc/{pid}/ns"))
}

/// Joins the pid namespace of this process, and of none that has its number later.
fn name_process(joined: &mut NamespacePath, process: &ProcessIdentity) {
    joined.path = format!("/proc/{}/ns/pid", process.pid).into();
    joined.process = Some(process.clone());
}

/// Changes the namespaces of a container that are those of its pod's sandbox, as the CRI names them by the
/// sandbox's pid. The pod's network is the one that the sandbox's own bundle named. Its pid namespace is kept by
/// the sandbox's process, if it has one; that is named with the path, since its pid can be another's by then.
/// All others are the host's. A network or a pid namespace of a sandbox of which that is not known is an error:
/// the host's would be more than the pod asks for.
///
/// `others` are the containers of this pod by pid, whose pid namespaces are named so too (an ephemeral container
/// with a target).
pub(crate) async fn resolve_namespaces<S: StateStore + ?Sized + 'static>(
    store: &Arc<S>,
    container: &mut ContainerSpec,
    others: &[(u32, ContainerId)],
) -> Result<()> {
    let cri = CriAnnotations::from_annotations(&container.annotations);
    let pod = PodNamespaces::of(store, cri).await?;
    let mut kept = Vec::new();
    for mut joined in std::mem::take(&mut container.namespaces) {
        let other = others.iter().find(|(pid, _)| is_of(&joined.path, *pid));
        let other = match other.filter(|_| joined.kind == NamespaceKind::Pid) {
            Some((_, id)) => find(store, id.clone()).await?.and_then(|one| one.process),
            None => None,
        };
        match other {
            Some(process) if !pod.pids.contains(&process.pid) => {
                name_process(&mut joined, &process);
                kept.push(joined);
            }
            _ if pod.names(&joined.path) => kept.extend(pod.resolve(joined)?),
            _ => kept.push(joined),
        }
    }
    container.namespaces = kept;
    Ok(())
}

async fn find<S: StateStore + ?Sized + 'static>(
    store: &Arc<S>,
    id: ContainerId,
) -> Result<Option<Record>> {
    let store = Arc::clone(store);
    match blocking(move || store.get(&id)).await {
        Ok(VersionedRecord { record, .. }) => Ok(Some(record)),
        Err(reaper_state::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Notes that a sandbox was started.
pub(crate) async fn start<S: StateStore + ?Sized + 'static>(
    store: &Arc<S>,
    id: &ContainerId,
) -> Result<()> {
    change(store, id, |record| {
        record.started = Some(Timestamp::now());
        record.status = Status::Running;
    })
    .await
}

/// Notes that a sandbox has ended.
pub(crate) async fn end<S: StateStore + ?Sized + 'static>(
    store: &Arc<S>,
    id: &ContainerId,
    exit: Exit,
) -> Result<()> {
    change(store, id, move |record| {
        record.status = Status::Stopped;
        record.exit = Some(exit.clone());
    })
    .await
}

/// Removes a sandbox from the store, where it may be gone already, and what was kept for its pod.
pub(crate) async fn delete<E: Executor, S: StateStore + ?Sized + 'static>(
    engine: &Engine<E, S>,
    id: &ContainerId,
) -> Result<()> {
    remove_view_of(engine, id).await;
    let (store, id, name) = (Arc::clone(engine.store()), id.clone(), id.to_string());
    match blocking(move || store.delete(&id)).await {
        Ok(()) | Err(reaper_state::Error::NotFound { .. }) => Ok(()),
        // On a full or read-only state root. Nothing but the record is left of the pod.
        Err(error @ reaper_state::Error::Io { .. }) => {
            tracing::warn!(%name, %error, "the record of a deleted sandbox is left");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes the overlay of the pod whose sandbox has this id, as [`remove_view`].
pub(crate) async fn remove_view_of<E: Executor, S: StateStore + ?Sized + 'static>(
    engine: &Engine<E, S>,
    id: &ContainerId,
) {
    if let Ok(Some(record)) = find(engine.store(), id.clone()).await {
        remove_view(engine, &record).await;
    }
}

/// Removes the overlay of the pod whose sandbox has this record, if it has one of its own. What
/// cannot be removed is left for people to see and must not keep the pod.
pub(crate) async fn remove_view<E: Executor, S: StateStore + ?Sized + 'static>(
    engine: &Engine<E, S>,
    record: &Record,
) {
    let view = record.annotations.get(VIEW);
    let Some(Ok(view)) = view.map(|json| serde_json::from_str::<ViewRequest>(json)) else {
        return;
    };
    if let Err(error) = engine.remove_view(view).await {
        tracing::warn!(id = %record.id, %error, "the overlay of a pod is left behind");
    }
}

async fn change<S: StateStore + ?Sized + 'static>(
    store: &Arc<S>,
    id: &ContainerId,
    change: impl Fn(&mut Record) + Send + 'static,
) -> Result<()> {
    let (store, id) = (Arc::clone(store), id.clone());
    let changed = blocking(move || {
        loop {
            let VersionedRecord {
                mut record,
                revision,
                ..
            } = store.get(&id)?;
            change(&mut record);
            match store.update(&revision, &record) {
                Err(reaper_state::Error::Conflict { .. }) => {}
                updated => return updated.map(|_| ()),
            }
        }
    });
    Ok(changed.await?)
}
