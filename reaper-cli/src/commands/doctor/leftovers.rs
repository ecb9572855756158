//! What earlier containers left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use reaper_overlay::{
    Overlays, Scope,
    mountinfo::{self, MountInfo},
};

use super::finding::CheckResult;
use crate::commands::{context::CommandContext, output::size, selection::known};

/// Folders of the state root that are no containers'.
const NO_CONTAINERS: [&str; 2] = ["ns", "overlay"];

pub(super) async fn examine(call: &CommandContext) -> Vec<CheckResult> {
    let mut findings = containers(call).await;
    let mounts = mountinfo::read().unwrap_or_default();
    let is_cgroup = |mount: &&MountInfo| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2");
    for path in mounts
        .iter()
        .filter(is_cgroup)
        .flat_map(|mount| empty_cgroups(&mount.mount_point))
    {
        findings.push(CheckResult::warning(
            "leftovers",
            format!("{} has no process", path.display()),
            format!(
                "`find {} -depth -type d -exec rmdir {{}} +`",
                path.display()
            ),
        ));
    }
    let overlays = Overlays::new(&call.config.overlay);
    match overlays.scopes() {
        Ok(scopes) => {
            for scope in &scopes {
                findings.extend(examine_scope(&overlays, scope));
            }
            findings.push(CheckResult::good(
                "overlays",
                format!("{} scopes", scopes.len()),
            ));
        }
        Err(error) => findings.push(unreadable(error.to_string())),
    }
    match overlays.left_over() {
        Ok(left) if left.files == 0 => {}
        Ok(left) => findings.push(CheckResult::warning(
            "overlays",
            format!(
                "{} of removed overlays are still there, since their removal was interrupted",
                size(left.bytes)
            ),
            "`reaper-runtime prune` removes them",
        )),
        Err(error) => findings.push(unreadable(error.to_string())),
    }
    match overlays.has_interrupted_commit() {
        Ok(false) => {}
        Ok(true) => findings.push(CheckResult::warning(
            "overlays",
            "a commit to this machine was interrupted",
            "`reaper-runtime prune` finishes or undoes it",
        )),
        Err(error) => findings.push(unreadable(error.to_string())),
    }
    findings
}

fn examine_scope(overlays: &Overlays, scope: &Scope) -> Option<CheckResult> {
    let info = match overlays.inspect(scope) {
        Ok(info) => info?,
        Err(error) => return Some(unreadable(format!("{scope}: {error}"))),
    };
    if info.changed_below.is_empty() {
        return None;
    }
    Some(CheckResult::warning(
        "overlays",
        format!(
            "this machine changed below {scope}: {}",
            info.changed_below.join(", ")
        ),
        format!("`reaper-runtime overlay reset {scope}` when nobody uses it"),
    ))
}

fn unreadable(found: String) -> CheckResult {
    CheckResult::warning("overlays", found, "see why it cannot be looked at")
}

async fn containers(call: &CommandContext) -> Vec<CheckResult> {
    let listed = async {
        let all = call.containers.list().await?;
        Ok::<_, crate::error::Error>((all, known(&call.containers).await?.stopped()))
    };
    let (all, stopped) = match listed.await {
        Ok(both) => both,
        Err(error) => {
            let fix = "see why they cannot be looked at";
            return vec![CheckResult::warning("containers", error.line(), fix)];
        }
    };
    let mut findings = Vec::new();
    let found = format!("{} in all, {} have stopped", all.len(), stopped.len());
    findings.push(if stopped.is_empty() {
        CheckResult::good("containers", found)
    } else {
        let fix = "`reaper-runtime prune` removes those that have stopped, if they are not needed";
        CheckResult::warning("containers", found, fix)
    });
    let known = all.iter().map(ToString::to_string).collect();
    for name in orphans(call.containers.root().path(), &known) {
        let path = call.containers.root().path().join(name);
        findings.push(CheckResult::warning(
            "leftovers",
            format!("{} belongs to no container", path.display()),
            format!("`rm -r {}`", path.display()),
        ));
    }
    findings
}

/// The folders below `root` that would be containers', and no container has.
fn orphans(root: &Path, known: &BTreeSet<String>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !NO_CONTAINERS.contains(&name.as_str()))
        .filter(|name| !known.contains(name))
        .collect();
    found.sort();
    found
}

/// The cgroups of containers that have no process any more, and should have gone with the last.
fn empty_cgroups(hierarchy: &Path) -> Vec<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_container_has_is_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["ns", "overlay", ".s", "known", "lost"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("state.db"), "").unwrap();
        let known = BTreeSet::from(["known".to_owned()]);
        assert_eq!(orphans(root.path(), &known), ["lost"]);
        assert!(orphans(Path::new("/nowhere"), &known).is_empty());
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
        let found = empty_cgroups(hierarchy.path());
        let lost = |name| hierarchy.path().join("reaper").join(name);
        assert_eq!(found, [lost("lost"), lost("v1-lost")]);
        assert!(empty_cgroups(Path::new("/nowhere")).is_empty());
    }
}
