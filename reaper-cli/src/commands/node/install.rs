//! `node install` and `node upgrade`.

use std::{fmt::Write as _, io::Write};

use super::{
    disk::{Host, execute},
    facts::{Node, lock},
    plan::{Facts, Plan, install, restarted, roll_back},
    record::{RELEASE, Restart},
    service::{answers, check},
    step::Step,
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
    let mut facts = node.facts(Some(&target), &programs)?;
    let mut plan = install(&facts, RELEASE, &target, &programs).map_err(Error::Node)?;
    if args.change.dry_run {
        return show(out, &facts, &plan);
    }
    if plan.tells_containerd || facts.is_restart_due() {
        facts.restart = restart(&node, &facts, &args.change)?;
        plan = install(&facts, RELEASE, &target, &programs).map_err(Error::Node)?;
    }
    if let Some(daemon) = &node.daemon {
        if let Some(after) = written(&plan.steps, &target.path) {
            check(&node, daemon, &target, after)?;
        }
    } else if !node.is_image {
        remark("no containerd was found: nothing checked what was written for it");
    }
    carry_out(&node, &facts, &plan, &|out| verify(args, out), out)
}

/// Does it, and restarts containerd. Where that does not work the node's texts are as they were before, and
/// containerd is restarted with them.
pub(super) fn carry_out(
    node: &Node,
    facts: &Facts,
    plan: &Plan,
    verify: &dyn Fn(&mut dyn Write) -> Result<()>,
    out: &mut dyn Write,
) -> Result<()> {
    run_steps(node, &plan.steps, out)?;
    let Some(restart) = &facts.restart else {
        if plan.steps.is_empty() {
            return print(out, format_args!("Nothing to do: all is in place\n"));
        }
        return Ok(());
    };
    let outcome = restart_by(restart, out).and_then(|has_restarted| match has_restarted {
        true => verify(out).map(|()| true),
        false => Ok(false),
    });
    let problem = match outcome {
        Ok(true) => return note_restarted(node, out),
        Ok(false) => return Ok(()),
        Err(problem) => problem,
    };
    let Some(there) = node.record()? else {
        return Err(problem);
    };
    run_steps(node, &roll_back(facts, &there), out)?;
    let again = restart_by(restart, out);
    Err(Error::Node(match again {
        Ok(_) => {
            note_restarted(node, out)?;
            format!(
                "{problem}: the configuration from before was written back, and containerd restarted with it: \
                 see its log, and call this again"
            )
        }
        Err(second) => format!(
            "{problem}: the configuration from before was written back, and with it too {second}: containerd may \
             not run: see its log, and call this again, which starts it"
        ),
    }))
}

pub(super) fn run_steps(node: &Node, steps: &[Step], out: &mut dyn Write) -> Result<()> {
    print_steps(out, steps)?;
    execute(&node.place, &Host, steps).map_err(|(step, source)| Error::io(step)(source))
}

/// Has the record say that containerd knows of the change.
pub(super) fn note_restarted(node: &Node, out: &mut dyn Write) -> Result<()> {
    let step = node.record()?.as_ref().and_then(restarted);
    run_steps(node, step.as_slice(), out)
}

/// How containerd is to be restarted. Asked before anything is changed, as it can be refused.
pub(super) fn restart(node: &Node, facts: &Facts, change: &NodeChange) -> Result<Option<Restart>> {
    if let Some(daemon) = running(node) {
        return Restart::choose(daemon, change).map(Some);
    }
    let Some(recorded) = facts.recorded_restart() else {
        return Ok(None);
    };
    Ok(Some(match &change.restart_command {
        _ if change.no_restart => Restart::Not,
        Some(command) => Restart::Command(command.clone()),
        None => recorded.clone(),
    }))
}

fn running(node: &Node) -> Option<&Daemon> {
    node.daemon.as_ref().filter(|daemon| daemon.is_running())
}

/// Whether containerd was restarted, and not left to others.
pub(super) fn restart_by(restart: &Restart, out: &mut dyn Write) -> Result<bool> {
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
            "containerd does not run after its restart".to_owned(),
        ));
    };
    match answers(daemon) {
        None => {
            remark("there is no ctr to try the shim with");
            Ok(())
        }
        Some(Ok(())) => print(out, format_args!("containerd ran a command with it\n")),
        Some(Err(problem)) => Err(Error::Node(format!(
            "containerd cannot run a command with it: {problem}"
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
