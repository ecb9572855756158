//! The files in a container's folder, and the path of its cgroup.

use std::{
    io,
    path::{Path, PathBuf},
};

use reaper_spec::{CgroupMode, ContainerId, DEFAULT_STATE_ROOT, path_hash};
use reaper_state::ContainerDir;

use crate::{
    cgroup::Hierarchies,
    protocol::{CleanupRecord, CreateContainer, Failure},
    records::{remove, remove_staged_files, staged_plan},
};

/// Removes `plan.json` and the socket, by which clients find a container, and what a killed monitor
/// was writing.
///
/// `plan.json` goes first: a container that has it, but no socket, is taken for one that is being
/// created.
pub(crate) fn remove_runtime_files(dir: &ContainerDir) {
    for file in [dir.cleanup_file(), dir.socket()] {
        let _ = remove(&file);
    }
    remove_staged_files(dir);
}

/// Removes a file, if it exists.
pub(crate) fn remove_file(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::setup(format!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Where the container's cgroups are to be. In no hierarchy if the container is not to have any, or
/// a runtime makes them.
pub(crate) fn choose_cgroups(call: &CreateContainer) -> Result<(Hierarchies, PathBuf), Failure> {
    let path = match &call.cgroups_path {
        Some(path) => path.relative().to_owned(),
        None => default_cgroup(&call.dir, &call.id),
    };
    if call.options.cgroups == CgroupMode::Off || call.runtime.is_some() {
        return Ok((Hierarchies::default(), path));
    }
    let found =
        Hierarchies::find().map_err(|error| Failure::setup("find the cgroup mounts", &error))?;
    Ok((found, path))
}

/// `reaper/ID`, or outside the default state root `reaper/ID~HASH` with a hash of the container's
/// folder: ids are unique within a state root only.
fn default_cgroup(dir: &Path, id: &ContainerId) -> PathBuf {
    let name = if dir == Path::new(DEFAULT_STATE_ROOT).join(id.as_str()) {
        id.to_string()
    } else {
        format!("{id}~{}", path_hash(dir))
    };
    Path::new("reaper").join(name)
}

/// Writes `plan.json`, which a client reads that finds the monitor dead.
///
/// It is renamed into place, so that it is complete or absent, but not synced: after a power loss
/// there is nothing left to be cleaned up.
pub(crate) fn write_cleanup_record(
    dir: &ContainerDir,
    plan: &CleanupRecord,
) -> Result<(), Failure> {
    let path = dir.cleanup_file();
    let staged = staged_plan(dir);
    let write = || {
        std::fs::write(&staged, serde_json::to_vec(plan)?)?;
        std::fs::rename(&staged, &path)
    };
    write().map_err(|error: io::Error| {
        let _ = std::fs::remove_file(&staged);
        Failure::setup(format!("write {}", path.display()), &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_a_cgroup_never_changes() {
        let id: ContainerId = "web-1".parse().expect("an id");
        let cgroup = |dir: &str| default_cgroup(Path::new(dir), &id);
        assert_eq!(cgroup("/run/reaper/web-1"), Path::new("reaper/web-1"));
        let other = cgroup("/run/other/web-1");
        assert_eq!(other, Path::new("reaper/web-1~281e81388a0081f6"));
        assert_eq!(cgroup("/run//other/web-1/"), other);
    }
}
