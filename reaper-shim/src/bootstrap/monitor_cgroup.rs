//! In which cgroup the daemon is, and so the monitors that it starts.
//!
//! `start` decides, since it is given the options of containerd's configuration before there is a daemon, and
//! tells the daemon by the setting's own variable. The daemon joins as it starts: what a process has allocated
//! before stays charged to where it was.

use std::{fs, path::Path, process, time::Duration};

use reaper_exec::{
    Engine, Executor,
    cgroup::{self, Hierarchies, MonitorCgroup, Origin},
};
use reaper_spec::{CgroupMode, CgroupsPath, Config, MonitorCgroupMode, path_hash};
use reaper_state::StateStore;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::environment::SERVE;
use crate::{Error, Result};

/// The setting's variable, by which `start` tells the daemon.
pub(super) const VARIABLE: &str = "REAPER_MONITOR_CGROUP";
const SETTING: &str = "monitor_cgroup";

/// How long the last monitors may take to end, when the shim ends or was killed.
const ENDS_LIMIT: Duration = Duration::from_millis(500);

/// What of a bundle says whose pod's it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodOfBundle {
    annotations: Annotations,
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri.sandbox-id")]
    sandbox_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

impl PodOfBundle {
    /// `None` for a bundle that cannot be read: the reason is said where it is needed as a whole.
    pub(super) fn read(bundle: &Path) -> Option<Self> {
        let json = fs::read(bundle.join("config.json")).ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// The id of the pod's sandbox.
    pub(super) fn sandbox_id(&self) -> Option<&str> {
        let id = self.annotations.sandbox_id.as_deref();
        id.filter(|id| !id.is_empty())
    }

    /// Calls `find` with the hierarchies and the path of the container's cgroup below their roots. `None` if the
    /// bundle names none.
    fn beside<T>(
        &self,
        find: impl FnOnce(&Hierarchies, &Path) -> std::result::Result<T, cgroup::Error>,
    ) -> Result<Option<T>> {
        let path = self.linux.cgroups_path.as_deref();
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = CgroupsPath::parse(path).map_err(|error| Error::Field {
            field: "linux.cgroupsPath",
            reason: error.to_string(),
        })?;
        let hierarchies = Hierarchies::find().map_err(|source| Error::System {
            operation: "find the hierarchies of cgroups",
            source,
        })?;
        find(&hierarchies, path.relative())
            .map(Some)
            .map_err(failed)
    }

    /// The cgroup of this shim for the pod `group` of containerd's `namespace`. `None` if the bundle names no
    /// cgroup that is below another.
    fn own_cgroup(&self, namespace: &str, group: &str) -> Result<Option<MonitorCgroup>> {
        // An earlier shim of the pod may be leaving its own just then, and moves all out of that.
        let name = format!("{}-{}", common_name(namespace, group), process::id());
        let found = self.beside(|all, path| MonitorCgroup::beside(all, path, &name))?;
        Ok(found.flatten())
    }

    /// The cgroups that shims of the pod have left, but for those of shims that live.
    fn left_cgroups(&self, namespace: &str, group: &str) -> Result<Vec<MonitorCgroup>> {
        let common = common_name(namespace, group);
        // Those of earlier versions have no pid in their names.
        let is_pods = |name: &str| {
            let rest = name.strip_prefix(&common);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let found = self.beside(|all, path| MonitorCgroup::find_beside(all, path, is_pods))?;
        let mut left = Vec::new();
        for (name, cgroup) in found.into_iter().flatten() {
            // It may have made it and not joined yet.
            let shim = name[common.len()..].strip_prefix('-');
            let pids = cgroup.pids().map_err(failed)?.into_iter();
            let shims = shim.map(str::to_owned).into_iter();
            let mut all = shims.chain(pids.map(|pid| pid.to_string()));
            if !all.any(|pid| is_shim(&pid)) {
                left.push(cgroup);
            }
        }
        Ok(left)
    }
}

/// Whether the process of this number is a shim that serves, or is about to.
fn is_shim(pid: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = command.rsplit(|&byte| byte == 0).skip(1);
    arguments.next() == Some(SERVE.as_bytes())
}

/// How the names of the cgroups of a pod's shims begin. Short, and nothing like a container's id: cAdvisor takes a
/// cgroup whose name has one for that container's. A pod's next sandbox, in the same cgroup, has another.
fn common_name(namespace: &str, group: &str) -> String {
    format!(
        "reaper-shim-{}",
        path_hash(&Path::new(namespace).join(group))
    )
}

fn failed(error: cgroup::Error) -> Error {
    Error::Field {
        field: SETTING,
        reason: error.to_string(),
    }
}

/// What `start` tells the daemon: the setting as all sources together have it.
pub(super) fn decide(config: &Config) -> Result<&'static str> {
    let mode = config.monitor_cgroup;
    if mode == MonitorCgroupMode::Pod && config.cgroups == CgroupMode::Off {
        return Err(Error::Field {
            field: SETTING,
            reason: "\"pod\" is a cgroup, and cgroups is \"off\"".to_owned(),
        });
    }
    Ok(mode.as_str())
}

/// The daemon, as a member of its pod's cgroup.
#[derive(Debug)]
pub(super) struct Membership {
    cgroup: MonitorCgroup,
    origin: Origin,
}

impl Membership {
    /// Has this process join, if `config` says so.
    ///
    /// # Errors
    /// A hierarchy or systemd refuses. A bundle without a pod's cgroup is a warning.
    pub(super) fn join(
        config: &Config,
        bundle: &Path,
        namespace: &str,
        id: &str,
    ) -> Result<Option<Self>> {
        if config.monitor_cgroup == MonitorCgroupMode::Node {
            return Ok(None);
        }
        let pod = PodOfBundle::read(bundle).unwrap_or_default();
        let group = pod.sandbox_id().unwrap_or(id);
        let Some(cgroup) = pod.own_cgroup(namespace, group)? else {
            tracing::warn!(%id, "the shim stays in containerd's cgroup: the bundle names none below a pod's");
            return Ok(None);
        };
        let origin = cgroup.join().map_err(failed)?;
        Ok(Some(Self { cgroup, origin }))
    }

    /// Leaves, and unless there are containers removes the cgroup. Those are for `delete`, and so is the cgroup
    /// of their monitors.
    pub(super) fn end(self, has_containers: bool) {
        let left = match has_containers {
            true => self.cgroup.leave(&self.origin),
            false => self.cgroup.remove(&self.origin, ENDS_LIMIT),
        };
        if let Err(error) = left {
            tracing::warn!(%error, "the shim's cgroup is left behind");
        }
    }
}

/// Removes the cgroups of shims that were killed, or have left containers behind, each with the last of its
/// containers.
pub(super) async fn remove_left<E, S>(
    engine: &Engine<E, S>,
    bundle: &Path,
    namespace: &str,
    id: &str,
) -> Result<()>
where
    E: Executor + 'static,
    S: StateStore + ?Sized + 'static,
{
    let pod = PodOfBundle::read(bundle).unwrap_or_default();
    let group = pod.sandbox_id().unwrap_or(id);
    let left = pod.left_cgroups(namespace, group)?;
    if left.is_empty() {
        return Ok(());
    }
    let store = engine.store().clone();
    let removed = spawn_blocking(move || {
        let monitors = store.list()?.into_iter().filter_map(|id| {
            let monitor = store.get(&id).ok()?.record.monitor?;
            Some(monitor.pid)
        });
        let monitors: Vec<u32> = monitors.collect();
        let remove = |cgroup: &MonitorCgroup| {
            let pids = cgroup.pids().map_err(failed)?;
            if monitors.iter().any(|monitor| pids.contains(monitor)) {
                return Ok(());
            }
            let origin = cgroup.origin().map_err(|source| Error::System {
                operation: "find the cgroups of this process",
                source,
            })?;
            cgroup.remove(&origin, ENDS_LIMIT).map_err(failed)
        };
        left.iter().map(remove).fold(Ok(()), Result::and)
    });
    removed.await.unwrap_or(Ok(()))
}
