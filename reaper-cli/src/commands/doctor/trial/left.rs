//! What a trial must not leave.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use reaper_exec::{
    cgroup::{Hierarchies, Hierarchy, V1Hierarchy},
    procfs,
};
use reaper_spec::ProcessIdentity;
use reaper_state::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    place::{Place, mounts_below},
    steps::Failure,
};

/// How long a monitor may take to end once it has said that its container is deleted.
const MONITOR_LIMIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// A file that was written in a view is not on the node. One that is gets removed.
pub(super) fn not_on_the_node(written: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(written) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let operation = format!("look for {}", written.display());
            return Err(Failure::io(&operation, &error));
        }
        Ok(_) => {}
    }
    let removed = match fs::remove_file(written) {
        Ok(()) => "it is removed".to_owned(),
        Err(error) => format!("it cannot be removed: {error}"),
    };
    Err(Failure::new(format!(
        "{} was written in the container, and appeared on this machine; {removed}",
        written.display()
    )))
}

/// Nothing is left of a container that was deleted, and of its scope.
pub(super) fn nothing(place: &Place, record: &Record) -> Result<(), Failure> {
    for process in record.process.iter().chain(&record.monitor) {
        ended(process)?;
    }
    let cgroups = cgroups(record.id.as_str())
        .into_iter()
        .filter(|path| path.exists());
    let found = mounts(place).into_iter().chain(files(place)).chain(cgroups);
    let found: Vec<_> = found.map(|path| path.display().to_string()).collect();
    if found.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "these are left: {}",
            found.join(", ")
        )))
    }
}

fn ended(process: &ProcessIdentity) -> Result<(), Failure> {
    // It is gone, or its pid is another's.
    let Ok(pidfd) = procfs::open_pidfd(process) else {
        return Ok(());
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut fds, Some(&MONITOR_LIMIT)) {
        Ok(0) => Err(Failure::new(format!("process {} is left", process.pid))),
        _ => Ok(()),
    }
}

fn cgroups(id: &str) -> Vec<PathBuf> {
    let Hierarchies { v2, v1, .. } = Hierarchies::find().unwrap_or_default();
    let v1 = v1.iter().map(V1Hierarchy::root);
    let roots = v2.iter().map(Hierarchy::root).chain(v1);
    roots.map(|root| root.join("reaper").join(id)).collect()
}

/// All mounts but those that a base has.
fn mounts(place: &Place) -> Vec<PathBuf> {
    let base = place.overlay();
    let own = [base.clone(), base.join("live")];
    let mounts = mounts_below(&base).into_iter();
    mounts.filter(|mount| !own.contains(mount)).collect()
}

/// What is in the state root, but for a store's database, and the scopes of the base.
fn files(place: &Place) -> Vec<PathBuf> {
    let below = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let is_database = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with('.')
    };
    let state = below(place.state()).filter(|path| !is_database(path));
    state.chain(below(place.overlay().join("scopes"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trial_file_written_to_host_is_removed_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let written = dir.path().join("written");
        not_on_the_node(&written).unwrap();
        fs::write(&written, "").unwrap();
        let failure = not_on_the_node(&written).unwrap_err();
        assert!(failure.message.contains("it is removed"), "{failure:?}");
        assert!(!written.exists());
    }
}
