//! A process that runs hooks, so that the monitor waits for none.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use nix::{sys::prctl, unistd::Pid};

use super::oom_score::OWN_OOM_SCORE_ADJ;
use crate::{channel, descriptors::close_range, hooks::HookFailure, sys};

/// The first descriptor that is not a standard stream.
const FIRST: RawFd = 3;

/// A child of the monitor that runs hooks. It kills the one that runs, and exits, when this is dropped or
/// the monitor exits.
#[derive(Debug)]
pub(crate) struct HookRunner {
    pid: Pid,
    socket: OwnedFd,
}

impl HookRunner {
    /// Forks a child for `run`, which gets what hangs up when the monitor no longer waits for the hooks, and
    /// returns those that failed.
    pub(crate) fn start(
        oom_score_adj: Option<i32>,
        run: impl FnOnce(BorrowedFd<'_>) -> Vec<HookFailure>,
    ) -> io::Result<Self> {
        let (ours, theirs) = channel::pair()?;
        if let Some(pid) = sys::fork()? {
            return Ok(Self { pid, socket: ours });
        }
        // This child never drops what the monitor holds.
        let _ = prctl::set_name(c"reaper-hooks");
        let wanted = match keep_alone(theirs) {
            Ok(socket) => socket,
            Err(_) => sys::exit_now(1),
        };
        // What hooks leave becomes this process's child, and then the monitor's.
        let _ = prctl::set_child_subreaper(true);
        if let Some(adjustment) = oom_score_adj {
            // A lower value than the monitor's client had may be refused.
            let _ = std::fs::write(OWN_OOM_SCORE_ADJ, adjustment.to_string());
        }
        let failures = run(wanted.as_fd());
        // If this cannot be sent, the monitor has exited.
        let _ = channel::send(wanted.as_fd(), &failures, &[]);
        sys::exit_now(0)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// What is to be polled for input.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The hooks that failed, once there is input.
    pub(crate) fn failures(&self) -> Vec<HookFailure> {
        let report = channel::receive(self.socket.as_fd()).and_then(|message| {
            let killed = || io::Error::other("the process that runs them was killed");
            message.ok_or_else(killed)?.parse()
        });
        report.unwrap_or_else(|error| {
            vec![HookFailure {
                step: "run the hooks".to_owned(),
                message: error.to_string(),
            }]
        })
    }
}

/// Closes all that this process has but its standard streams and `socket`: the monitor's ends of FIFOs
/// and sockets would stay open for as long as hooks run.
fn keep_alone(socket: OwnedFd) -> io::Result<OwnedFd> {
    let number = socket.as_raw_fd();
    close_range(FIRST, number - 1)?;
    close_range(number + 1, RawFd::MAX)?;
    Ok(socket)
}
