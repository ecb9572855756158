//! Sending signals.

use std::os::fd::AsFd;

use nix::{
    errno::Errno,
    sys::signal::{Signal as NixSignal, killpg},
    unistd::{Pid, getpgid},
};
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

/// Sends a signal to the process group that `pid` leads, a child that was not reaped. `None` where it
/// leads none.
pub(crate) fn signal_group(pid: u32, signal: Signal) -> Option<Result<(), Failure>> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    if getpgid(Some(pid)) != Ok(pid) {
        return None;
    }
    // nix knows no real-time signals; none of them comes from a terminal.
    let named = NixSignal::try_from(signal.number()).ok()?;
    Some(match killpg(pid, named) {
        Ok(()) => Ok(()),
        Err(Errno::ESRCH) => Err(Failure::Ended),
        Err(errno) => Err(Failure::setup(format!("send {signal}"), &errno.into())),
    })
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
