//! The process that keeps a pod's pid namespace, and does nothing else.
//!
//! It is number 1 in it: what the pod's containers leave becomes its child, and its end is the kernel's end of all
//! in there. The containers see it, so it has nothing that they could reach by `/proc/1`: no files, no root but an empty
//! one, no capabilities, and it cannot be traced by a process that has not the right to trace any.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::SignalFd,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, close},
};
use reaper_overlay::enter_empty_root;
use reaper_spec::Capabilities;

use super::{
    capabilities::Granted,
    step::{Failed, Step as _, from_error},
};
use crate::{descriptors::close_range, protocol::ChildReport, sys};

/// Gives up what the process has, and stays until it is told to end.
pub(super) fn run(start_socket: &OwnedFd) -> Result<ChildReport, Failed> {
    // While there is a /proc, which older kernels need for it.
    close_range(0, 2).step("close the streams")?;
    enter_empty_root().map_err(|error| from_error("leave the files of the host", &error))?;
    let granted = Granted::of(&Capabilities::default(), &mut Vec::new())?;
    granted.reduce_bounding()?;
    granted.apply()?;
    prctl::set_no_new_privs().step("set no_new_privs")?;
    prctl::set_dumpable(false).step("keep from being traced")?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    // A blocked signal waits to be read, while one whose default it is to end this process is discarded
    // for number 1 of a pid namespace.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None).step("block the signals")?;
    let read = SignalFd::new(&signals).step("read the signals")?;
    // The monitor hears of it that all is done.
    // This process never returns, so that its owner does not close the number once more.
    let _ = close(start_socket.as_raw_fd());
    loop {
        let Ok(Some(signal)) = read.read_signal() else {
            continue;
        };
        // 0 is a process outside of the namespace: a container's must not end the pod.
        if signal.ssi_signo == Signal::SIGCHLD as u32 {
            reap_all();
        } else if signal.ssi_pid == 0 {
            sys::exit_now(0);
        }
    }
}

fn reap_all() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}
