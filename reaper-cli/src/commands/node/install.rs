//! `node install` and `node upgrade`.

use std::{fmt::Write as _, io::Write};

use super::{
    disk::{Host, execute},
    facts::{Node, lock},
    plan::{Facts, Plan, Step, install},
    record::RELEASE,
    service::{Restart, answers, check},
};
use crate::{
    args::{NodeChange, NodeInstallArgs},
    commands::{
        containerd::Daemon,
        output::{print, remark},
    },
    error::{Error, Result},
    text::printable,
};

pub(super) fn run(args: &NodeInstallArgs, is_upgrade: bool, out: &mut dyn Write) -> Result<()> {
    let node = Node::find(&args.target)?;
    let _lock = lock(&node.place)?;
    if is_upgrade && node.record()?.is_none() {
        return Err(Error::Node(
            "nothing is installed here that could be upgraded: see `reaper-runtime node install`"
                .to_owned(),
        ));
    }
    let target = node.target()?;
    let programs = node.programs(args.from.as_deref(), args.bin_dir.as_deref())?;
    let facts = node.facts(Some(&target), &programs)?;
    let plan = install(&facts, RELEASE, &target, &programs).map_err(Error::Node)?;
    if args.change.dry_run {
        return show(out, &facts, &plan);
    }
    let restart = match plan.tells_containerd || facts.is_unaware() {
        true => restart(&node, &args.change)?,
        false => None,
    };
    if let Some(daemon) = &node.daemon {
        if let Some(after) = written(&plan.steps, &target.path) {
            check(&node, daemon, &target, after)?;
        }
    } else if !node.is_image {
        remark("no containerd was found: nothing checked what was written for it");
    }
    print_steps(out, &plan.steps)?;
    execute(&node.place, &Host, &plan.steps).map_err(|(step, source)| Error::io(step)(source))?;
    let has_restarted = restart_if_due(&node, &restart, out)?;
    if plan.steps.is_empty() && !has_restarted {
        return print(out, format_args!("Nothing to do: all is in place\n"));
    }
    if has_restarted {
        verify(args, out)?;
    }
    Ok(())
}

/// How containerd is to be restarted. Asked before anything is changed, as it can be refused.
pub(super) fn restart(node: &Node, change: &NodeChange) -> Result<Option<Restart>> {
    match running(node) {
        Some(daemon) => Restart::choose(daemon, change).map(Some),
        None => Ok(None),
    }
}

fn running(node: &Node) -> Option<&Daemon> {
    node.daemon.as_ref().filter(|daemon| daemon.is_running())
}

/// Restarts the containerd that does not know of the last change. A call that was interrupted before
/// that is made good by this one.
pub(super) fn restart_if_due(
    node: &Node,
    restart: &Option<Restart>,
    out: &mut dyn Write,
) -> Result<bool> {
    let facts = node.facts(None, &[])?;
    let (Some(restart), true) = (restart, facts.is_unaware()) else {
        return Ok(false);
    };
    match restart {
        Restart::Not => {
            remark("containerd does not know of the change before it is restarted");
            return Ok(false);
        }
        Restart::Unit(unit) => print(out, format_args!("restart {}\n", printable(unit)))?,
        Restart::Command(line) => print(out, format_args!("{}\n", printable(line)))?,
    }
    restart.run()?;
    Ok(true)
}

/// Whether a new containerd runs, and what its shim does.
fn verify(args: &NodeInstallArgs, out: &mut dyn Write) -> Result<()> {
    let node = Node::find(&args.target)?;
    let Some(daemon) = running(&node) else {
        return Err(Error::Node(
            "containerd does not run after its restart: see its log, or `reaper-runtime node uninstall`"
                .to_owned(),
        ));
    };
    match answers(daemon) {
        None => {
            remark("there is no ctr to try the shim with");
            Ok(())
        }
        Some(Ok(())) => print(out, format_args!("containerd ran a command with it\n")),
        Some(Err(problem)) => Err(Error::Node(format!(
            "containerd cannot run a command with it: {problem}: see `reaper-runtime doctor`"
        ))),
    }
}

fn written<'a>(steps: &'a [Step], wanted: &std::path::Path) -> Option<&'a str> {
    steps.iter().find_map(|step| match step {
        Step::Write { path, text, .. } if path == wanted => Some(text.as_str()),
        _ => None,
    })
}

pub(super) fn print_steps(out: &mut dyn Write, steps: &[Step]) -> Result<()> {
    steps
        .iter()
        .try_for_each(|step| print(out, format_args!("{}\n", printable(&step.to_string()))))
}

/// What a plan does, texts as a diff of what is there.
pub(super) fn show(out: &mut dyn Write, facts: &Facts, plan: &Plan) -> Result<()> {
    let mut text = String::new();
    for step in plan.steps.iter().chain(&plan.afterwards) {
        let state = |path| facts.texts.get(path);
        let (path, before, after) = match step {
            Step::Write { path, text, .. } if state(path).is_some() => {
                let before = state(path).and_then(|state| state.current.as_deref());
                (path, before.unwrap_or_default(), text.as_str())
            }
            Step::Remove(path) if state(path).is_some() => {
                let before = state(path).and_then(|state| state.current.as_deref());
                (path, before.unwrap_or_default(), "")
            }
            other => {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{other}");
                continue;
            }
        };
        let (old, new) = match step {
            Step::Remove(_) => (path.display().to_string(), "/dev/null".to_owned()),
            _ if before.is_empty() => ("/dev/null".to_owned(), path.display().to_string()),
            _ => (path.display().to_string(), path.display().to_string()),
        };
        let diff = similar::TextDiff::from_lines(before, after);
        text += &diff.unified_diff().header(&old, &new).to_string();
    }
    if text.is_empty() {
        text.push_str("Nothing to do: all is in place\n");
    }
    for line in text.lines() {
        print(out, format_args!("{}\n", printable(line)))?;
    }
    Ok(())
}
