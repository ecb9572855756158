//! One process of the container, from its fork to its end.

use std::os::fd::OwnedFd;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reaper_spec::{ExecId, ProcessIdentity};

use crate::{
    cgroup::Leaf,
    io::{BoundStdio, NoStreams},
    monitor::support::{connection::ReplyTo, deferred_streams::DeferredExec, states::ProcessState},
    protocol::Failure,
};

/// The number of init among the processes.
pub(crate) const INIT: u64 = 0;

/// A process that exists, or that existed and is remembered.
pub(crate) struct LiveProcess {
    pub(crate) pid: Pid,
    pub(crate) identity: ProcessIdentity,
}

/// One process of the container.
pub(crate) struct Process {
    /// Names it for as long as the monitor lives, which neither its place in the list nor its pid
    /// does.
    pub(crate) number: u64,
    /// `None` for init.
    pub(crate) exec: Option<ExecId>,
    /// The process itself; `None` until a runtime has made it.
    pub(crate) live: Option<LiveProcess>,
    pub(crate) state: ProcessState,
    /// The pair to the child; its other end closes on `execve`.
    pub(crate) start_socket: Option<OwnedFd>,
    pub(crate) leaf: Option<Leaf>,
    pub(crate) stdio: Box<dyn BoundStdio>,
    pub(crate) waiters: Vec<ReplyTo>,
    /// Why it could not be started, and who is to be told once it has ended.
    pub(crate) failed_start: Option<(ReplyTo, Failure)>,
    /// The connection that asked for it.
    pub(crate) owner: u64,
    /// It shall end with that connection.
    pub(crate) tied: bool,
    /// What its start needs, where a runtime makes it then.
    pub(crate) deferred: Option<DeferredExec>,
    /// An exec that was deleted, whose loggers may not have finished.
    pub(crate) deleted: bool,
}

impl Process {
    /// A process without a live, streams, or anything else.
    pub(crate) fn new(number: u64, exec: Option<ExecId>, state: ProcessState, owner: u64) -> Self {
        Self {
            number,
            exec,
            live: None,
            state,
            start_socket: None,
            leaf: None,
            stdio: Box::new(NoStreams),
            waiters: Vec::new(),
            failed_start: None,
            owner,
            tied: false,
            deferred: None,
            deleted: false,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, ProcessState::Stopped(_))
    }

    pub(crate) fn pid_number(&self) -> Option<u32> {
        self.live.as_ref().map(|live| live.identity.pid)
    }

    pub(crate) fn identity(&self) -> Option<ProcessIdentity> {
        self.live.as_ref().map(|live| live.identity.clone())
    }

    /// Sends a signal to the process, which must not have been reaped. It may have ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(live) = &self.live {
            let _ = kill(live.pid, signal);
        }
    }

    /// One that clients do not know, or no more.
    pub(crate) fn is_hidden(&self) -> bool {
        self.deleted || matches!(self.state, ProcessState::FailedToCreate)
    }

    /// An exec that has ended and that is of no use to anybody: it was deleted, or nobody can ask
    /// about it any more, since its client is gone.
    pub(crate) fn is_over(&self, is_connected: impl Fn(u64) -> bool) -> bool {
        if self.exec.is_none() || !self.has_ended() {
            return false;
        }
        if self.deleted {
            return self.stdio.helpers().is_empty();
        }
        self.stdio.is_finished() && !is_connected(self.owner)
    }
}
