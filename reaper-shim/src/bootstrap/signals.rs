//! Signals to the daemon.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks the daemon for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM or SIGINT: to end.
    End,
    /// SIGUSR1: to write to its log what it has.
    Report,
    /// SIGCHLD: to reap what has ended.
    Reap,
}

/// The signals that would end a process that does not handle them. A shim is there for its
/// containers, so a stray one must not end it.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    child: Signal,
    report: Signal,
    ignored: [Signal; 4],
}

impl Signals {
    /// Handles them from now on.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
            report: signal(SignalKind::user_defined1())?,
            ignored: [
                signal(SignalKind::hangup())?,
                signal(SignalKind::quit())?,
                signal(SignalKind::user_defined2())?,
                signal(SignalKind::alarm())?,
            ],
        })
    }

    /// Waits for the next that asks for something.
    pub(super) async fn next(&mut self) -> Asked {
        let [hangup, quit, user, alarm] = &mut self.ignored;
        loop {
            tokio::select! {
                _ = self.term.recv() => return Asked::End,
                _ = self.int.recv() => return Asked::End,
                _ = self.child.recv() => return Asked::Reap,
                _ = self.report.recv() => return Asked::Report,
                _ = hangup.recv() => {}
                _ = quit.recv() => {}
                _ = user.recv() => {}
                _ = alarm.recv() => {}
            }
            tracing::debug!("a signal is ignored");
        }
    }
}
