//! Sending signals.

use std::os::fd::AsFd;

use nix::errno::Errno;
use reaper_spec::ExitStatus;

use crate::{procfs, protocol::Failure, signal::Signal, sys};

/// Sends a signal to the process `pid`.
///
/// The pid cannot have been reused: it is that of a child of the monitor that has not been reaped,
/// or of a descendant of one.
pub(crate) fn send_signal(pid: u32, signal: Signal) -> Result<(), Failure> {
    let identity = match procfs::identify(pid) {
        Ok(identity) => identity,
        Err(_) => return Err(Failure::Ended),
    };
    let sent = procfs::open_pidfd(&identity)
        .and_then(|pidfd| sys::pidfd_send_signal(pidfd.as_fd(), signal.number()));
    match sent {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Err(Failure::Ended),
        Err(error) => Err(Failure::setup(format!("send {signal}"), &error)),
    }
}

/// Sends a signal to several processes, as [`send_signal`] does. Those that have exited are
/// skipped.
pub(crate) fn send_signals(pids: Vec<u32>, signal: Signal) -> Result<(), Failure> {
    pids.into_iter()
        .map(|pid| send_signal(pid, signal))
        .filter(|sent| !matches!(sent, Err(Failure::Ended)))
        .collect()
}

/// The exit status of a process that `signal` has ended.
pub(crate) fn killed_by(signal: Signal) -> ExitStatus {
    ExitStatus::Signaled {
        signal: signal.number(),
        core: false,
    }
}
