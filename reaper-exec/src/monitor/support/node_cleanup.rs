//! What is done on the node when a container is gone and nobody waits for it any more.

use std::{io, os::fd::RawFd, path::Path};

use nix::unistd::setsid;
use reaper_overlay::{FilesystemIsolation, ViewRequest};
use rustix::process::nice;

use super::log::log_line;
use crate::sys;

/// The first descriptor that is not a standard stream.
const FIRST: RawFd = 3;

/// How much the workloads of the node are preferred.
const NICENESS: i32 = 10;

/// Does what `isolation` has to do after the end of `view`, in a child that holds nothing of this
/// process, so that whoever waits for this one does not wait for that. The child's parent is to
/// end at once; a subreaper above reaps the child.
pub(crate) fn spawn_gc(
    isolation: &dyn FilesystemIsolation,
    view: &ViewRequest,
    oom_score_adj: Option<i32>,
    log: Option<&Path>,
) {
    let Some(work) = isolation.housekeeping(view) else {
        return;
    };
    let failed = |error: &dyn std::fmt::Display| {
        log_line(
            log,
            view.id.as_str(),
            &format!("clear up the node: {error}"),
        );
    };
    match sys::fork() {
        Ok(Some(_)) => {}
        Ok(None) => {
            if let Err(error) = detach_child(oom_score_adj) {
                failed(&error);
            } else if let Err(error) = work() {
                failed(&error);
            }
            sys::exit_now(0);
        }
        Err(errno) => failed(&errno),
    }
}

/// Lets go of all that others wait for.
fn detach_child(oom_score_adj: Option<i32>) -> io::Result<()> {
    sys::close_range(FIRST, RawFd::MAX)?;
    setsid()?;
    // Nothing depends on these.
    let _ = nice(NICENESS);
    if let Some(score) = oom_score_adj {
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    Ok(())
}
