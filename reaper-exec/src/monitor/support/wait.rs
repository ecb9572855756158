//! Ends of processes as the kernel tells them.

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, sigprocmask},
    },
    unistd::Pid,
};
use reaper_spec::ExitStatus;
use rustix::process::WaitOptions;

use crate::sys;

/// Ends this process by a signal, without a core dump. Returns only if the signal cannot do that.
pub(crate) fn exit_by_signal(signal: i32) {
    // A limit of 0 would not do: it does not count where dumps are piped to a program.
    let _ = prctl::set_dumpable(false);
    sys::default_signals();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    sys::raise(signal);
}

/// A child that has ended and has not been reaped.
pub(crate) fn next_ended() -> Option<Pid> {
    loop {
        match sys::next_ended() {
            Err(Errno::EINTR) => {}
            ended => return ended.ok().flatten(),
        }
    }
}

pub(crate) fn any_children() -> bool {
    sys::next_ended() != Err(Errno::ECHILD)
}

/// Reaps a child that has ended.
pub(crate) fn reap(pid: Pid) -> Option<ExitStatus> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw());
    let (_, status) = rustix::process::waitpid(pid, WaitOptions::NOHANG)
        .ok()
        .flatten()?;
    if let Some(signal) = status.terminating_signal() {
        const CORE: i32 = 0x80;
        return Some(ExitStatus::Signaled {
            signal,
            core: status.as_raw() & CORE != 0,
        });
    }
    let code = u8::try_from(status.exit_status()?).unwrap_or(u8::MAX);
    Some(ExitStatus::Exited { code })
}
