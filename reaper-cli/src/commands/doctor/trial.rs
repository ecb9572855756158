//! The trial: a scope, a container, an exec and their removal, for real, in a private place.
//!
//! What keeps containers from running on a machine is found by running one, not by knowing the
//! kernel's version. The container is made by the same engine as all others, with the node's
//! configuration, but below folders of its own: see [`Place`]. Each step has a limit of time, so that
//! a step that hangs is a finding too.

mod advice;
mod container;
mod left;
mod place;
mod plan;
mod process;
mod steps;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub(crate) use self::process::run_if_asked;
use self::{
    container::Trial,
    place::{Place, Places},
    steps::{Failure, Steps},
};
use super::{super::finding::CheckResult, interfaces::errno_name, kernel_log::KernelLog};
use crate::{
    commands::CommandContext,
    error::Result,
    signals::{Event, Signals},
};

const ABOUT: &str = "trial";

/// What doctors that were killed have left, where nothing is to be changed.
pub(super) fn find_leftovers(call: &CommandContext) -> Vec<CheckResult> {
    let left = Places::of(call).left();
    let found = left.into_iter().map(|path| {
        CheckResult::warning(
            "leftovers",
            format!("{} is of a doctor that was killed", path.display()),
            "`reaper-runtime doctor` without --no-trial removes it",
        )
    });
    found.collect()
}

/// Tries it, after what doctors that were killed have left was removed.
///
/// # Errors
/// A signal to this program cannot be caught.
pub(super) async fn examine(call: &CommandContext) -> Result<Vec<CheckResult>> {
    if let Some(finding) = not_tried(call) {
        return Ok(vec![finding]);
    }
    let mut signals = Signals::catch()?;
    let mut findings = Vec::new();
    let places = Places::of(call);
    for path in places.left() {
        findings.push(remove_left(&path, call).await);
    }
    let begun = Instant::now();
    let mut log = KernelLog::from_now();
    let steps = Arc::new(Mutex::new(Steps::default()));
    let place = Steps::step(&steps, "make a private folder", async { places.make() }).await;
    let trial = match place {
        Ok(place) => Arc::new(Trial::new(place, call)),
        Err(_) => {
            findings.push(finding(&steps, &mut log, begun));
            return Ok(findings);
        }
    };
    // As a task: a panic in it ends the task alone, and what it made is removed all the same.
    let mut task = tokio::spawn(Arc::clone(&trial).run(Arc::clone(&steps)));
    let interrupted = tokio::select! {
        ended = &mut task => {
            if ended.is_err() {
                Steps::failed(&steps, Failure::new("this program panicked"));
            }
            None
        }
        signal = interruption(&mut signals) => Some(signal),
    };
    task.abort();
    let removed = Steps::step(&steps, "remove the private folder", trial.remove()).await;
    if let (Some(signal), _) = (interrupted, removed) {
        crate::sys::exit_by_signal(signal);
    }
    findings.push(finding(&steps, &mut log, begun));
    Ok(findings)
}

/// An OCI runtime without root needs a bundle that is made for its user.
fn not_tried(call: &CommandContext) -> Option<CheckResult> {
    let runtime = call.config.runtime_path.as_ref()?;
    if nix::unistd::geteuid().is_root() || call.containers.executor().defers_streams() {
        return None;
    }
    Some(CheckResult::warning(
        ABOUT,
        format!("not tried: {} makes the containers", runtime.display()),
        "to try it, call `reaper-runtime doctor` as root",
    ))
}

/// Waits for a signal that is to end this program.
async fn interruption(signals: &mut Signals) -> i32 {
    loop {
        if let Event::Forward(signal) | Event::Key(signal) = signals.next().await {
            return signal.number();
        }
    }
}

async fn remove_left(path: &std::path::Path, call: &CommandContext) -> CheckResult {
    let removed = match Place::take_over(path) {
        Ok(place) => Trial::new(place, call).remove().await,
        Err(failure) => Err(failure),
    };
    let shown = path.display();
    match removed {
        Ok(()) => CheckResult::good(
            "leftovers",
            format!("removed {shown}, of a doctor that was killed"),
        ),
        Err(failure) => CheckResult::warning(
            "leftovers",
            format!(
                "{shown} is of a doctor that was killed: {}",
                failure.message
            ),
            format!("`umount -R {shown}/overlay; rm -r {shown}`"),
        ),
    }
}

/// What the steps come to.
fn finding(steps: &Mutex<Steps>, log: &mut KernelLog, begun: Instant) -> CheckResult {
    let steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
    let mut finding = match steps.first_failure() {
        None => {
            let found = format!(
                "{} worked in {} ms{}",
                steps.what(),
                begun.elapsed().as_millis(),
                steps.remarks()
            );
            CheckResult::good(ABOUT, found)
        }
        Some((step, failure)) => {
            let said = log.said();
            let fix = advice::of(step, failure, said.as_deref().unwrap_or_default());
            CheckResult::problem(ABOUT, describe(step, failure, said), fix)
        }
    };
    finding.steps = steps.done().to_vec();
    finding
}

fn describe(
    step: &str,
    failure: &Failure,
    said: std::result::Result<Vec<String>, &std::io::Error>,
) -> String {
    let mut text = format!("cannot {step}: {}", failure.message);
    if let Some(errno) = failure.errno {
        text.push_str(&format!(" ({})", errno_name(errno)));
    }
    match said {
        Ok(said) if said.is_empty() => {}
        Ok(said) => text.push_str(&format!("; the kernel says: {}", said.join("; "))),
        Err(error) => {
            text.push_str(&format!(
                "; what the kernel says cannot be read (/dev/kmsg: {error})"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trial_failure_names_step_errno_and_kernel_log() {
        let failure = Failure {
            message: "mount the overlay over /: Invalid argument".to_owned(),
            errno: Some(nix::libc::EINVAL),
        };
        let said = vec!["overlayfs: failed to clone upperpath".to_owned()];
        assert_eq!(
            describe("make a scope and a container", &failure, Ok(said)),
            "cannot make a scope and a container: mount the overlay over /: Invalid argument \
             (EINVAL); the kernel says: overlayfs: failed to clone upperpath"
        );
        let denied = std::io::Error::from_raw_os_error(nix::libc::EPERM);
        let text = describe("start it", &failure, Err(&denied));
        assert!(text.contains("/dev/kmsg: "), "{text}");
    }
}
