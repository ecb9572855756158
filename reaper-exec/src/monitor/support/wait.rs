//! Waiting: for children, and for descriptors until a deadline.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{Resource, getrlimit},
        signal::{SigSet, SigmaskHow, sigprocmask},
    },
    unistd::Pid,
};
use reaper_spec::ExitStatus;
use rustix::process::WaitOptions;

use crate::sys;

/// Ends this process by a signal, without a core dump. Returns only if the signal cannot do that.
pub(crate) fn exit_by_signal(signal: i32) {
    // RLIMIT_CORE does not suffice: core(5) ignores it where dumps are piped to a program.
    let _ = prctl::set_dumpable(false);
    sys::default_signals();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    sys::raise(signal);
}

/// A child that has exited and has not been reaped.
pub(crate) fn next_ended() -> Option<Pid> {
    loop {
        match sys::next_ended() {
            Err(Errno::EINTR) => {}
            ended => return ended.ok().flatten(),
        }
    }
}

/// Whether there are children, reaped ones aside.
pub(crate) fn any_children() -> bool {
    sys::next_ended() != Err(Errno::ECHILD)
}

/// Reaps a child that has exited.
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

/// As poll(2), also for more descriptors than RLIMIT_NOFILE allows to be open, which poll(2)
/// refuses: the limit of a running process can be lowered from outside (prlimit(2)).
///
/// # Errors
/// Those of poll(2).
pub(crate) fn poll_all(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> nix::Result<()> {
    match poll(fds, timeout) {
        Err(Errno::EINVAL) => poll_in_parts(fds, timeout),
        polled => polled.map(drop),
    }
}

fn poll_in_parts(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> nix::Result<()> {
    /// One call waits for one part only, so the others are looked at as often as this.
    const LOOK: Duration = Duration::from_millis(100);
    let look = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    if size == 0 {
        poll(&mut [], look)?;
        return Err(Errno::EINVAL);
    }
    let mut ready = 0;
    for part in fds.chunks_mut(size) {
        ready += poll(part, PollTimeout::ZERO)?;
    }
    if ready == 0 {
        let wait = match timeout.duration() {
            Some(duration) if duration < LOOK => timeout,
            _ => look,
        };
        let first = size.min(fds.len());
        poll(&mut fds[..first], wait)?;
    }
    Ok(())
}

/// Waits until `done`, which is asked again whenever `fd` reports one of `events`, or until
/// `deadline`. Returns whether it is done.
pub(crate) fn wait_until(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Instant,
    done: impl Fn() -> bool,
) -> bool {
    while !done() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return done();
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        // An interruption or a spurious wake-up only leads to another turn.
        let _ = poll(&mut [PollFd::new(fd, events)], timeout);
    }
    true
}
