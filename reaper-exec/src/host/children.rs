//! The monitors that are children of this process, and the orphans that are too.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::{
    signal::Signal,
    wait::{Id, WaitPidFlag, WaitStatus, waitid},
};
use tokio::io::Interest;

use crate::{procfs, sys};

/// The monitors that this process has started and that have not been reaped.
#[derive(Debug, Clone, Default)]
pub(super) struct Children(Arc<Mutex<HashSet<u32>>>);

impl Children {
    fn pids(&self) -> MutexGuard<'_, HashSet<u32>> {
        // The set is whole after any panic: each change of it is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a monitor.
    pub(super) fn spawn(&self, mut command: Command) -> io::Result<Child> {
        // Held over the spawn: an orphan hunt in between would take the monitor for an orphan.
        let mut pids = self.pids();
        let pid = command.spawn()?.id();
        let pidfd = procfs::identify(pid).and_then(|identity| procfs::open_pidfd(&identity))?;
        pids.insert(pid);
        Ok(Child {
            pid,
            pidfd,
            siblings: self.clone(),
            killed: AtomicBool::new(false),
        })
    }

    /// Kills the children of this process that are not its monitors.
    pub(super) fn end_orphans(&self) {
        let monitors = self.pids();
        for pid in procfs::children(std::process::id()).unwrap_or_default() {
            if monitors.contains(&pid) {
                continue;
            }
            let pidfd = procfs::identify(pid).and_then(|identity| procfs::open_pidfd(&identity));
            if let Ok(pidfd) = pidfd {
                // An error means that it has exited already.
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
        }
    }
}

/// A monitor that is a child of this process.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    pidfd: OwnedFd,
    siblings: Children,
    /// Whether SIGKILL has ended it.
    killed: AtomicBool,
}

impl Child {
    pub(super) fn kill(&self) {
        // It may have ended by itself.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Waits for its exit, and reaps it unless other code in this process has.
    pub(super) async fn reaped(&self) {
        let watched = self
            .pidfd
            .try_clone()
            .and_then(|pidfd| sys::watch(pidfd, Interest::READABLE));
        if let Ok(pidfd) = watched {
            // An error is the end of the runtime; there is nothing to wait with then.
            let _ = pidfd.readable().await;
        }
        let status = waitid(
            Id::PIDFd(self.pidfd.as_fd()),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG,
        );
        let is_killed = matches!(status, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)));
        self.killed.store(is_killed, Ordering::Relaxed);
    }

    /// Whether SIGKILL has ended it, of what is known since [`reaped`](Self::reaped).
    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.siblings.pids().remove(&self.pid);
    }
}
