//! `node uninstall`.

use std::{fs, io, io::Write, path::Path};

use reaper_exec::procfs;
use reaper_overlay::{Overlays, mountinfo};
use reaper_state::{Error as StoreError, StateRoot};
use rustix::mount::{UnmountFlags, unmount};

use super::{
    facts::{Node, lock},
    install::{note_restarted, restart, restart_by, run_steps, show},
    plan::{Facts, Plan, uninstall},
    status::Shims,
};
use crate::{
    args::NodeUninstallArgs,
    commands::{
        context::CommandContext,
        output::{print, remark},
        roots::roots,
    },
    error::{Error, Result},
    logs,
    text::printable,
};

pub(super) fn run(
    call: &CommandContext,
    args: &NodeUninstallArgs,
    out: &mut dyn Write,
) -> Result<()> {
    let node = Node::find(&args.target)?;
    let _lock = lock(&node.place)?;
    let mut facts = node.facts(None, &[])?;
    let mut plan = uninstall(&facts);
    let mut used = in_use(call, args, &node)?;
    for path in facts.record.iter().flat_map(|record| &record.found) {
        remark(&format!(
            "{} stays: there was one before the installation",
            printable(&path.display().to_string())
        ));
    }
    if args.change.dry_run {
        show(out, &facts, &plan)?;
    } else {
        if plan.tells_containerd || facts.is_restart_due() {
            facts.restart = restart(&node, &facts, &args.change)?;
            plan = uninstall(&facts);
        }
        carry_out(&node, &facts, &plan, out)?;
        // One could begin as long as containerd had the handlers.
        used = in_use(call, args, &node)?;
        run_steps(&node, &plan.afterwards, out)?;
    }
    if node.is_image {
        return Ok(());
    }
    if used > 0 {
        remark(
            "what containers write and their state stays, as some run: `/run` is empty after the next boot",
        );
        return Ok(());
    }
    remove_state(call, args.change.dry_run, out)
}

/// Does it, and restarts containerd. The record stays where that does not work, for the next call to start it.
pub(super) fn carry_out(
    node: &Node,
    facts: &Facts,
    plan: &Plan,
    out: &mut dyn Write,
) -> Result<()> {
    run_steps(node, &plan.steps, out)?;
    let Some(restart) = &facts.restart else {
        return Ok(());
    };
    let outcome = restart_by(restart, out).map_err(|problem| {
        Error::Node(format!(
            "{problem}: containerd may not run, with the configuration from before the installation: see its \
             log, and call this again, which starts it"
        ))
    })?;
    match outcome {
        true => note_restarted(node, out),
        false => Ok(()),
    }
}

/// How many run, which is refused unless it is forced.
fn in_use(call: &CommandContext, args: &NodeUninstallArgs, node: &Node) -> Result<usize> {
    if node.is_image {
        return Ok(0);
    }
    let used = running(call, node, args.force)?;
    if used > 0 && !args.force && !args.change.dry_run {
        return Err(Error::Node(format!(
            "{used} containers or pods of Reaper run: delete those pods (`reaper-runtime list` and \
             `reaper-runtime --namespace k8s.io list` name them), or say --force, which leaves them running"
        )));
    }
    Ok(used)
}

/// How many containers run, and shims of pods. If it is forced, one whose record cannot be read counts as one
/// that runs.
fn running(call: &CommandContext, node: &Node, force: bool) -> Result<usize> {
    let mut running = 0;
    for (_, root) in roots(call)? {
        let found = running_in(call, &root, force);
        running += match found {
            Err(error) if force => unreadable(&root.path().display().to_string(), &error),
            found => found?,
        };
    }
    let shims = match node.record()? {
        Some(record) => Shims::find(&record).all(),
        None => 0,
    };
    Ok(running.max(shims))
}

fn running_in(call: &CommandContext, root: &StateRoot, force: bool) -> Result<usize> {
    let mut running = 0;
    let store = reaper_state::open(call.config.store, root)?;
    for id in store.list()? {
        running += match store.get(&id) {
            Ok(stored) => usize::from(stored.record.process.as_ref().is_some_and(procfs::is_alive)),
            Err(StoreError::NotFound { .. }) => 0,
            Err(error) if force => unreadable(id.as_ref(), &error.into()),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(running)
}

/// Says so, and counts as one.
fn unreadable(what: &str, error: &Error) -> usize {
    remark(&format!(
        "{} is taken for one that runs: {error}",
        printable(what)
    ));
    1
}

/// Removes what no container needs any more: overlays, state, and logs.
fn remove_state(call: &CommandContext, dry_run: bool, out: &mut dyn Write) -> Result<()> {
    let config = &call.config.overlay;
    let overlays = Overlays::new(config);
    for scope in overlays.scopes()? {
        print(out, format_args!("remove the overlay {scope}\n"))?;
        if !dry_run {
            overlays.remove(&scope)?;
        }
    }
    if !dry_run {
        // No container is left that could need them.
        for left in reaper_overlay::find_leftovers(config, &|_| true)? {
            reaper_overlay::remove_leftover(config, &left)?;
        }
    }
    let logs = logs::folder(&call.config);
    for dir in [
        config.base.as_path(),
        call.config.state_root.as_path(),
        &logs,
    ] {
        if !dir.exists() {
            continue;
        }
        if !is_own(dir) {
            remark(&format!(
                "{} may have other files, and stays",
                printable(&dir.display().to_string())
            ));
            continue;
        }
        print(
            out,
            format_args!("remove {}\n", printable(&dir.display().to_string())),
        )?;
        if !dry_run {
            remove_tree(dir)?;
        }
    }
    Ok(())
}

/// Whether the name says whose it is: what is configured could be any directory.
fn is_own(dir: &Path) -> bool {
    let names = dir.components().rev().take(2);
    let mut names = names.map(|name| name.as_os_str().to_string_lossy());
    names.any(|name| name.contains("reaper"))
}

fn remove_tree(dir: &Path) -> Result<()> {
    let below = || -> Result<Vec<_>> {
        let mounts = mountinfo::read()?;
        let points = mounts.into_iter().map(|mount| mount.mount_point);
        Ok(points.filter(|point| point.starts_with(dir)).collect())
    };
    for point in below()?.iter().rev() {
        unmount(point, UnmountFlags::DETACH)
            .map_err(|error| Error::io(format!("unmount {}", point.display()))(error.into()))?;
    }
    // Through a mount the node's own files would be removed.
    if let Some(point) = below()?.first() {
        return Err(Error::Node(format!(
            "{} is mounted again: call this again",
            point.display()
        )));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_named_after_reaper_is_removed() {
        for own in ["/run/reaper", "/run/reaper/overlay", "/var/log/reaper"] {
            assert!(is_own(Path::new(own)), "{own}");
        }
        for other in ["/", "/run", "/data", "/var/lib/x", "/reaper/a/b"] {
            assert!(!is_own(Path::new(other)), "{other}");
        }
    }
}
