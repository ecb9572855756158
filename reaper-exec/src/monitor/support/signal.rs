//! Sending signals.

use std::os::fd::AsFd;

use nix::errno::Errno;
use reaper_spec::ExitStatus;

use crate::{procfs, protocol::Failure, signal::Signal, sys};

/// The pid cannot have been reused: it is the monitor's child and has not been reaped, or it is a
/// member of the tree of such a child.
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

pub(crate) fn killed_by(signal: Signal) -> ExitStatus {
    ExitStatus::Signaled {
        signal: signal.number(),
        core: false,
    }
}
