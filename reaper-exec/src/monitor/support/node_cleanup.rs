//! What an isolation removes on the host after the last client was answered.
//!
//! This may take long, and clients wait for the monitor to exit. So a child does it.

use std::{io, os::fd::RawFd, path::Path};

use nix::unistd::setsid;
use reaper_overlay::{FilesystemIsolation, ViewRequest};
use rustix::process::nice;

use super::log::log_line;
use crate::{descriptors::close_range, sys};

/// The first descriptor that is not a standard stream.
const FIRST: RawFd = 3;

/// The child's nice(2) value: containers are preferred.
const NICENESS: i32 = 10;

/// Forks a child that does what `isolation` has to do when the container of `view` no longer
/// exists.
///
/// The child closes all descriptors of this process, which clients read to the end. This process is
/// to exit at once; the child is then reaped by a subreaper above.
pub(crate) fn spawn_gc(
    isolation: &dyn FilesystemIsolation,
    view: &ViewRequest,
    oom_score_adj: Option<i32>,
    log: Option<&Path>,
) {
    let Some(work) = isolation.gc(view) else {
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

/// Closes the descriptors and leaves the session that other processes may wait for.
fn detach_child(oom_score_adj: Option<i32>) -> io::Result<()> {
    close_range(FIRST, RawFd::MAX)?;
    setsid()?;
    // Errors are ignored: these only make the child less of a burden.
    let _ = nice(NICENESS);
    if let Some(score) = oom_score_adj {
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    Ok(())
}
