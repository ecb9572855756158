//! Freezing and thawing the container.

use std::time::{Duration, Instant};

use reaper_spec::Transition;

use crate::{
    cgroup::{ContainerCgroup, read_events},
    monitor::{
        container::monitor::{Freezing, Monitor},
        support::connection::ReplyTo,
    },
    protocol::{Answer, Failure},
};

/// A process in uninterruptible sleep is not frozen before it wakes up.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

impl Monitor {
    pub(crate) fn pause(&mut self, reply_to: ReplyTo) -> Result<(), Failure> {
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
        let events = begin().map_err(|error: crate::cgroup::Error| {
            Failure::from_error("freeze the cgroup", &error)
        })?;
        self.freezing = Some(Freezing {
            events,
            reply_to,
            deadline: Instant::now() + FREEZE_TIMEOUT,
        });
        // It may have happened before the first poll, which would report no change.
        self.freezer_ready();
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> Result<(), Failure> {
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
        self.cgroup.as_ref().ok_or_else(|| Failure::Unsupported {
            operation: operation.to_owned(),
            reason: "the container has no cgroup of version 2, which is what can freeze it".into(),
        })
    }

    /// The kernel has something to say about the cgroup.
    pub(crate) fn freezer_ready(&mut self) {
        let Some(freezing) = &self.freezing else {
            return;
        };
        // By the file that is polled: only reading that one makes it quiet again.
        if !read_events(&freezing.events).is_ok_and(|events| events.frozen) {
            return;
        }
        if let Some(freezing) = self.freezing.take() {
            self.frozen = true;
            self.reply(freezing.reply_to, Ok(Answer::Done));
        }
    }

    /// The container has ended while it was being frozen.
    pub(crate) fn freezing_ended(&mut self) {
        if let Some(freezing) = self.freezing.take() {
            self.reply(freezing.reply_to, Err(Failure::Ended));
        }
    }

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
        if let Some(cgroup) = &self.cgroup {
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
