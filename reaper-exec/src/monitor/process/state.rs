//! One process of the container, from its creation until no client can ask for its exit any more.

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

/// The identity of a process that was created.
pub(crate) struct LiveProcess {
    pub(crate) pid: Pid,
    pub(crate) identity: ProcessIdentity,
}

/// One process of the container.
pub(crate) struct Process {
    /// Identifies it within this monitor. Its place in the list changes, and its pid may be reused.
    pub(crate) number: u64,
    /// `None` for init.
    pub(crate) exec: Option<ExecId>,
    /// `None` until a runtime has created it.
    pub(crate) live: Option<LiveProcess>,
    pub(crate) state: ProcessState,
    /// The socket to the child, which waits on its end for the start message. The child's end is
    /// closed by execve(2).
    pub(crate) start_socket: Option<OwnedFd>,
    pub(crate) leaf: Option<Leaf>,
    pub(crate) stdio: Box<dyn BoundStdio>,
    pub(crate) waiters: Vec<ReplyTo>,
    /// Why its program was not executed, and the request to answer after its exit.
    pub(crate) failed_start: Option<(ReplyTo, Failure)>,
    /// The number of the connection of the client that asked for it.
    pub(crate) creator: u64,
    /// The same, or of the client that it is to end with.
    pub(crate) owner: u64,
    /// It is killed when that client disconnects.
    pub(crate) kill_on_disconnect: bool,
    /// What its start needs, if a runtime creates it then.
    pub(crate) deferred: Option<DeferredExec>,
    /// It was deleted. It stays in the list until its loggers have exited.
    pub(crate) deleted: bool,
}

impl Process {
    /// A process without an identity, streams, or anything else.
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
            creator: owner,
            owner,
            kill_on_disconnect: false,
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

    /// Sends a signal to the process, which must not have been reaped. It may have exited.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(live) = &self.live {
            let _ = kill(live.pid, signal);
        }
    }

    /// Whether no request can name it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.deleted || matches!(self.state, ProcessState::FailedToCreate)
    }

    /// Whether it is an exec that has exited and whose exit no client can ask for: it was deleted,
    /// or its client has disconnected. It can be dropped once its streams have finished.
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
