//! Who waits for kills for lack of memory, and what was seen of them.

use std::time::Instant;

use crate::{cgroup::OomNotifier, monitor::support::connection::ReplyTo};

/// Who waits for kills, and what was seen of them.
#[derive(Debug, Default)]
pub(crate) struct OomWatch {
    /// The kernel's notice, once a client has asked.
    pub(crate) notifier: Option<OomNotifier>,
    /// The clients, with the number of kills that each knows of.
    pub(crate) waiters: Vec<(u64, ReplyTo)>,
    /// Those that are known.
    pub(crate) kills: u64,
    /// Those in the cgroup before the container was in it.
    pub(crate) earlier: u64,
    /// When to look again, the latest first.
    pub(crate) looks: Vec<Instant>,
}

impl OomWatch {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.looks.last().copied()
    }
}
