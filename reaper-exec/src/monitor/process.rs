//! One process of the container, from its fork to its end.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use reaper_spec::{ExecId, Exit, ProcessIdentity};

use super::connection::ReplyTo;
use crate::{cgroup::Leaf, io::BoundStdio};

/// Where a process is.
pub(super) enum Stage {
    /// It sets itself up; whoever asked for it gets the answer.
    Preparing(ReplyTo),
    /// It waits at its gate.
    Gated,
    /// The gate is open; whoever opened it gets the answer.
    Starting(ReplyTo),
    /// The program was executed.
    Running,
    /// It has ended.
    Ended(Exit),
}

/// One process of the container.
pub(super) struct Process {
    /// `None` for init.
    pub(super) exec: Option<ExecId>,
    pub(super) pid: Pid,
    pub(super) identity: ProcessIdentity,
    pub(super) stage: Stage,
    /// The pair to the child; its other end closes on `execve`.
    pub(super) gate: Option<OwnedFd>,
    pub(super) leaf: Option<Leaf>,
    pub(super) stdio: Box<dyn BoundStdio>,
    pub(super) waiters: Vec<ReplyTo>,
    /// The connection that asked for it.
    pub(super) owner: u64,
}

impl Process {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }

    pub(super) fn pid_number(&self) -> u32 {
        self.identity.pid
    }

    /// An exec that has ended and that nobody can ask about any more: its client is gone.
    pub(super) fn is_unreachable(&self, is_connected: impl Fn(u64) -> bool) -> bool {
        self.exec.is_some()
            && self.has_ended()
            && self.stdio.is_finished()
            && !is_connected(self.owner)
    }
}
