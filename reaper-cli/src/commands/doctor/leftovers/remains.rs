//! One thing that was left, and its removal.

use std::{
    collections::BTreeSet,
    fmt, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use reaper_overlay::{Leftover, mountinfo};
use reaper_spec::OverlayConfig;
use reaper_state::ContainerDir;
use rustix::mount::{UnmountFlags, unmount};

use crate::commands::output::size;

/// Folders of the state root that are not of containers.
const NO_CONTAINERS: [&str; 2] = ["ns", "overlay"];
/// What is younger may be of a container that another process is making.
const YOUNGEST: Duration = Duration::from_secs(60);

/// One thing that was left.
#[derive(Debug)]
pub(super) enum Remains {
    /// A folder of the state root, with the sockets and mounts in it.
    Directory(PathBuf),
    /// A cgroup without processes.
    Cgroup(PathBuf),
    /// Of an overlay.
    Overlay(Leftover),
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}, which belongs to no container", path.display()),
            Self::Cgroup(path) => write!(f, "{}, which has no process", path.display()),
            Self::Overlay(Leftover::Trash(usage)) => write!(
                f,
                "{} of removed overlays, whose removal was interrupted",
                size(usage.bytes)
            ),
            Self::Overlay(leftover) => leftover.fmt(f),
        }
    }
}

impl Remains {
    /// What to do about it, for people.
    pub(super) fn way_out(&self) -> String {
        let by_hand = match self {
            Self::Directory(path) => format!(", as does `rm -r {}`", path.display()),
            Self::Cgroup(path) => {
                let path = path.display();
                format!(", as does `find {path} -depth -type d -exec rmdir {{}} +`")
            }
            Self::Overlay(_) => String::new(),
        };
        format!("`reaper-runtime doctor --fix` removes it{by_hand}")
    }

    pub(super) fn remove(&self, overlay: &OverlayConfig) -> Result<(), String> {
        match self {
            Self::Directory(path) => remove_directory(path),
            Self::Cgroup(path) => remove_cgroup(path),
            Self::Overlay(leftover) => reaper_overlay::remove_leftover(overlay, leftover)
                .map_err(|error| error.to_string()),
        }
    }
}

/// The folders below `root` that would be containers', and no container has.
pub(super) fn directories(root: &Path, known: &BTreeSet<String>) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            !name.starts_with('.') && !NO_CONTAINERS.contains(&&*name) && !known.contains(&*name)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// The cgroups of containers that have no process any more, and should have gone with the last.
pub(super) fn cgroups(hierarchy: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(hierarchy.join("reaper")) else {
        return Vec::new();
    };
    let is_empty = |path: &PathBuf| {
        match fs::read_to_string(path.join("cgroup.events")) {
            Ok(events) => events.lines().any(|line| line == "populated 0"),
            // Version 1 has no such file, and no cgroups in a container's.
            Err(_) => {
                fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())
            }
        }
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_empty)
        .collect();
    found.sort();
    found
}

/// Unmounts what is mounted below it first: a removal must not go on into another filesystem.
fn remove_directory(path: &Path) -> Result<(), String> {
    is_old_enough(path)?;
    if UnixStream::connect(ContainerDir::new(path).socket()).is_ok() {
        return Err("a monitor still answers in it".to_owned());
    }
    for mount in mounts_below(path)? {
        unmount(mount.as_path(), UnmountFlags::DETACH)
            .map_err(|errno| format!("unmount {}: {errno}", mount.display()))?;
    }
    if let Some(mount) = mounts_below(path)?.first() {
        return Err(format!("{} is still mounted", mount.display()));
    }
    fs::remove_dir_all(path).map_err(|error| error.to_string())
}

/// The mounts at and below a path, the last one first.
fn mounts_below(path: &Path) -> Result<Vec<PathBuf>, String> {
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let mounts = mountinfo::read().map_err(|error| error.to_string())?;
    let points = mounts.into_iter().rev().map(|mount| mount.mount_point);
    Ok(points.filter(|point| point.starts_with(&path)).collect())
}

fn remove_cgroup(path: &Path) -> Result<(), String> {
    is_old_enough(path)?;
    remove_cgroups(path)
}

/// Children first. The kernel refuses to remove one that has a process.
fn remove_cgroups(path: &Path) -> Result<(), String> {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path())?;
        }
    }
    fs::remove_dir(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn is_old_enough(path: &Path) -> Result<(), String> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = modified.map_err(|error| error.to_string())?.elapsed();
    match age {
        Ok(age) if age < YOUNGEST => {
            let limit = YOUNGEST.as_secs();
            Err(format!(
                "it is younger than {limit} s, and may be in the making"
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[PathBuf]) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into();
        found.iter().map(name).collect()
    }

    #[test]
    fn state_directories_without_container_are_orphans() {
        let root = tempfile::tempdir().unwrap();
        for name in ["ns", "overlay", ".s", "known", "lost"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("state.db"), "").unwrap();
        let known = BTreeSet::from(["known".to_owned()]);
        assert_eq!(names(&directories(root.path(), &known)), ["lost"]);
        assert!(directories(Path::new("/nowhere"), &known).is_empty());
    }

    #[test]
    fn cgroups_without_processes_are_found() {
        let hierarchy = tempfile::tempdir().unwrap();
        for (name, populated) in [("lost", 0), ("alive", 1)] {
            let cgroup = hierarchy.path().join("reaper").join(name);
            fs::create_dir_all(&cgroup).unwrap();
            let events = format!("populated {populated}\nfrozen 0\n");
            fs::write(cgroup.join("cgroup.events"), events).unwrap();
        }
        for (name, pids) in [("v1-lost", ""), ("v1-alive", "1\n")] {
            let cgroup = hierarchy.path().join("reaper").join(name);
            fs::create_dir_all(&cgroup).unwrap();
            fs::write(cgroup.join("cgroup.procs"), pids).unwrap();
        }
        assert_eq!(names(&cgroups(hierarchy.path())), ["lost", "v1-lost"]);
        assert!(cgroups(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn doctor_leaves_new_directories_alone() {
        let root = tempfile::tempdir().unwrap();
        let young = root.path().join("young");
        fs::create_dir(&young).unwrap();
        let refused = remove_directory(&young).unwrap_err();
        assert!(refused.contains("in the making"), "{refused}");
        assert!(young.exists());
    }
}
