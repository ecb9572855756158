//! Freezing and thawing the container by its cgroup.
//!
//! A freeze takes as long as its slowest process: one in uninterruptible sleep is frozen when it
//! wakes up. The kernel reports the end by a change of `cgroup.events`, which is polled; after 5 s
//! the freeze is undone and reported as failed.

use std::time::{Duration, Instant};

use reaper_spec::Transition;

use crate::{
    cgroup::{self, ContainerCgroup, read_events},
    monitor::{
        container::monitor::{Freezing, Monitor},
        support::connection::ReplyTo,
    },
    protocol::{Failure, Response},
};

/// How long a freeze may take.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

impl Monitor {
    pub(crate) fn freeze_cgroup(&mut self, reply_to: ReplyTo) -> Result<(), Failure> {
        let status = self.status();
        if status.after(Transition::Pause).is_err() || self.freezing.is_some() {
            return Err(Failure::status("pause", status));
        }
        let cgroup = self.freezer("pause")?;
        let begin = || {
            let events = cgroup.events_fd()?;
            cgroup.freeze(true)?;
            Ok(events)
        };
        let events = begin()
            .map_err(|error: cgroup::Error| Failure::from_error("freeze the cgroup", &error))?;
        self.freezing = Some(Freezing {
            events,
            reply_to,
            deadline: Instant::now() + FREEZE_TIMEOUT,
        });
        // A freeze that is done already would not be reported as a change by poll(2).
        self.freezer_ready();
        Ok(())
    }

    pub(crate) fn thaw_cgroup(&mut self) -> Result<(), Failure> {
        let status = self.status();
        if status.after(Transition::Resume).is_err() {
            return Err(Failure::status("resume", status));
        }
        let thawed = self.freezer("resume")?.freeze(false);
        thawed.map_err(|error| Failure::from_error("thaw the cgroup", &error))?;
        self.frozen = false;
        Ok(())
    }

    fn freezer(&self, operation: &str) -> Result<&ContainerCgroup, Failure> {
        self.cgroups.v2().ok_or_else(|| Failure::Unsupported {
            operation: operation.to_owned(),
            reason: "the container has no cgroup of version 2, which is what can freeze it".into(),
        })
    }

    /// Answers the client if the freeze is done. Called when `cgroup.events` has changed.
    pub(crate) fn freezer_ready(&mut self) {
        let Some(freezing) = &self.freezing else {
            return;
        };
        // Only reading the polled file itself resets its POLLPRI.
        if !read_events(&freezing.events).is_ok_and(|events| events.frozen) {
            return;
        }
        if let Some(freezing) = self.freezing.take() {
            self.frozen = true;
            self.reply(freezing.reply_to, Ok(Response::Done));
        }
    }

    /// Answers the client of a freeze during which the container has stopped.
    pub(crate) fn freezing_ended(&mut self) {
        if let Some(freezing) = self.freezing.take() {
            self.reply(freezing.reply_to, Err(Failure::Ended));
        }
    }

    /// Undoes a freeze that takes too long.
    pub(crate) fn freezing_deadline(&mut self, now: Instant) {
        if self
            .freezing
            .as_ref()
            .is_none_or(|freezing| freezing.deadline > now)
        {
            return;
        }
        let Some(freezing) = self.freezing.take() else {
            return;
        };
        if let Some(cgroup) = self.cgroups.v2() {
            let _ = cgroup.freeze(false);
        }
        let failure = Failure::Setup {
            step: "freeze the cgroup".to_owned(),
            message: "a process is in uninterruptible sleep".to_owned(),
            errno: None,
        };
        self.reply(freezing.reply_to, Err(failure));
    }
}
