//! Kills for lack of memory, reported to the clients that wait for them.
//!
//! The kernel is asked for notice once a client waits. Version 1's notice comes before the kill, so
//! the counter is looked at again a few times after one; an idle monitor has no such time to wait
//! for.

use std::time::{Duration, Instant};

use crate::{
    monitor::{
        container::{backend::Reply, monitor::Monitor},
        support::{connection::ReplyTo, states::MonitorState},
    },
    protocol::{Failure, Response},
};

/// When the counter is looked at after a notice.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(100),
    Duration::from_secs(2),
];

impl Monitor {
    /// Answers with the number of kills once there are more than `seen`, or the container has
    /// stopped.
    pub(crate) fn wait_for_oom(&mut self, seen: u64, to: ReplyTo) -> Reply {
        if self.oom.notifier.is_none() && matches!(self.state, MonitorState::Live) {
            let notifier = self.accounting_cgroups().oom_notifier();
            self.oom.notifier = notifier
                .map_err(|error| Failure::from_error("watch for lack of memory", &error))?;
        }
        self.count_oom_kills();
        let is_stopped = matches!(self.state, MonitorState::Stopped(_) | MonitorState::Aborted);
        if self.oom.kills > seen || is_stopped {
            return Ok(Some(Response::OomKills(self.oom.kills)));
        }
        self.oom.waiters.push((seen, to));
        Ok(None)
    }

    /// The kernel has reported something.
    pub(crate) fn oom_ready(&mut self) {
        let Some(notifier) = &mut self.oom.notifier else {
            return;
        };
        if !notifier.acknowledge() {
            self.oom.notifier = None;
        } else if notifier.is_early() {
            let now = Instant::now();
            self.oom.looks = LOOKS.iter().rev().map(|after| now + *after).collect();
        }
        self.look_for_oom_kills();
    }

    pub(crate) fn oom_deadline(&mut self, now: Instant) {
        if self.oom.deadline().is_some_and(|next| next <= now) {
            self.oom.looks.retain(|next| *next > now);
            self.look_for_oom_kills();
        }
    }

    /// Looks at the counter, and answers the clients that do not know its value.
    pub(crate) fn look_for_oom_kills(&mut self) {
        self.count_oom_kills();
        self.answer_oom(false);
    }

    /// Answers all clients. Called before the exit of init is published, and before the cgroups are
    /// removed.
    pub(crate) fn oom_ended(&mut self) {
        self.count_oom_kills();
        self.oom.notifier = None;
        self.oom.looks.clear();
        self.answer_oom(true);
    }

    /// Looks at the counter. A runtime removes its cgroups before the end is published, so this is
    /// called before as well.
    pub(crate) fn count_oom_kills(&mut self) {
        // A cgroup that is removed has no counter.
        if let Some(kills) = self.accounting_cgroups().oom_kills() {
            let kills = kills.saturating_sub(self.oom.earlier);
            self.oom.kills = self.oom.kills.max(kills);
        }
    }

    fn answer_oom(&mut self, all: bool) {
        let kills = self.oom.kills;
        let waiters = std::mem::take(&mut self.oom.waiters);
        let (ready, rest): (Vec<_>, Vec<_>) = waiters
            .into_iter()
            .partition(|(seen, _)| all || kills > *seen);
        self.oom.waiters = rest;
        for (_, to) in ready {
            self.reply(to, Ok(Response::OomKills(kills)));
        }
    }
}
