//! What earlier containers left.

mod remains;

use std::{collections::BTreeSet, path::PathBuf};

use reaper_overlay::{
    Overlays, Scope,
    mountinfo::{self, MountInfo},
};
use reaper_spec::ContainerId;

use self::remains::Remains;
use super::super::finding::CheckResult;
use crate::{
    commands::{
        context::CommandContext,
        roots::{id_of, is_of, roots},
        selection::known,
    },
    error::Result,
};

const ABOUT: &str = "leftovers";

/// Names what is left. With `fix` it is removed.
pub(super) async fn examine(call: &CommandContext, fix: bool) -> Vec<CheckResult> {
    let mut findings = containers(call).await;
    let present = match Present::find(call) {
        Ok(present) => present,
        Err(error) => {
            let found = format!("cannot tell what is left: {}", error.line());
            findings.push(CheckResult::warning(
                ABOUT,
                found,
                "see why, and call it again",
            ));
            return findings;
        }
    };
    for found in remains(call, &present) {
        findings.push(match found {
            Ok(remains) if fix => removed(&remains, call, &present),
            Ok(remains) => CheckResult::warning(ABOUT, remains.to_string(), remains.way_out()),
            Err(problem) => CheckResult::warning(ABOUT, problem, "see why, and call it again"),
        });
    }
    findings.extend(overlays(call));
    findings
}

/// The containers that there are, in the caller's root and in the roots of containerd's namespaces
/// below it.
pub(super) struct Present {
    /// The ids, by root.
    roots: Vec<(PathBuf, BTreeSet<ContainerId>)>,
}

impl Present {
    fn find(call: &CommandContext) -> Result<Self> {
        let mut present = Vec::new();
        for (_, root) in roots(call)? {
            let ids = reaper_state::open(call.config.store, &root)?.list()?;
            present.push((root.path().to_owned(), ids.into_iter().collect()));
        }
        Ok(Self { roots: present })
    }

    /// Whether a container, by the name that is unique on the node, is of one of these roots and not
    /// there. Of other roots nothing is known.
    fn is_gone(&self, unique: &str) -> bool {
        let Some(id) = id_of(unique) else {
            return false;
        };
        let mut roots = self.roots.iter();
        roots
            .find(|(root, _)| is_of(root, &id, unique))
            .is_some_and(|(_, ids)| !ids.contains(&id))
    }

    /// Whether one of the roots has a container of this name, which may tell its root behind a `~`.
    fn has(&self, name: &str) -> bool {
        id_of(name).is_some_and(|id| self.roots.iter().any(|(_, ids)| ids.contains(&id)))
    }
}

/// All that is left, and what could not be looked at.
fn remains(call: &CommandContext, present: &Present) -> Vec<std::result::Result<Remains, String>> {
    let mut found = Vec::new();
    for (root, ids) in &present.roots {
        let names = ids.iter().map(ToString::to_string).collect();
        let dirs = remains::directories(root, &names).into_iter();
        found.extend(dirs.map(|path| Ok(Remains::Directory(path))));
    }
    let mounts = mountinfo::read().unwrap_or_default();
    let is_cgroup = |mount: &&MountInfo| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2");
    let hierarchies = mounts.iter().filter(is_cgroup);
    for path in hierarchies.flat_map(|mount| remains::cgroups(&mount.mount_point)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !present.has(&name) {
            found.push(Ok(Remains::Cgroup(path)));
        }
    }
    match reaper_overlay::find_leftovers(&call.config.overlay, &|id| present.is_gone(id)) {
        Ok(left) => found.extend(left.into_iter().map(|left| Ok(Remains::Overlay(left)))),
        Err(error) => found.push(Err(format!("of overlays: {error}"))),
    }
    found
}

/// Removes it, unless a container has come to be meanwhile that it may belong to.
fn removed(remains: &Remains, call: &CommandContext, before: &Present) -> CheckResult {
    let still = Present::find(call).is_ok_and(|now| now.roots == before.roots);
    if !still {
        return CheckResult::warning(
            ABOUT,
            format!("{remains} is left alone: containers came or went meanwhile"),
            "call it again",
        );
    }
    match remains.remove(&call.config.overlay) {
        Ok(()) => CheckResult::good(ABOUT, format!("removed {remains}")),
        Err(problem) => CheckResult::warning(
            ABOUT,
            format!("{remains} cannot be removed: {problem}"),
            "put right what keeps it, and call it again",
        ),
    }
}

fn overlays(call: &CommandContext) -> Vec<CheckResult> {
    let overlays = Overlays::new(&call.config.overlay);
    let mut findings = Vec::new();
    match overlays.scopes() {
        Ok(scopes) => {
            let examined = scopes
                .iter()
                .flat_map(|scope| examine_scope(&overlays, scope));
            findings.extend(examined);
            let found = format!("{} scopes", scopes.len());
            findings.push(CheckResult::good("overlays", found));
        }
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

fn examine_scope(overlays: &Overlays, scope: &Scope) -> Vec<CheckResult> {
    let info = match overlays.inspect(scope) {
        Ok(Some(info)) => info,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![unreadable(format!("{scope}: {error}"))],
    };
    let members = info.members.join(", ");
    let mut findings = Vec::new();
    if !info.changed_below.is_empty() {
        let changed = info.changed_below.join(", ");
        findings.push(CheckResult::warning(
            "overlays",
            format!("this machine changed below {scope}: {changed}"),
            format!("it is seen in {scope} when its members have ended: {members}"),
        ));
    }
    findings.extend(info.unmounted.iter().map(|unmounted| {
        CheckResult::warning(
            "overlays",
            format!("{scope} keeps in use what this machine has unmounted: {unmounted}"),
            format!("it is free when the members of {scope} have ended: {members}"),
        )
    }));
    findings
}

fn unreadable(found: String) -> CheckResult {
    CheckResult::warning("overlays", found, "see why it cannot be looked at")
}

async fn containers(call: &CommandContext) -> Vec<CheckResult> {
    let known = match known(&call.containers).await {
        Ok(known) => known,
        Err(error) => {
            let fix = "see why they cannot be looked at";
            return vec![CheckResult::warning("containers", error.line(), fix)];
        }
    };
    let stopped = known.stopped();
    let found = format!("{} in all, {} have stopped", known.all, stopped.len());
    vec![if stopped.is_empty() {
        CheckResult::good("containers", found)
    } else {
        let fix = "`reaper-runtime prune` removes those that have stopped, if they are not needed";
        CheckResult::warning("containers", found, fix)
    }]
}
