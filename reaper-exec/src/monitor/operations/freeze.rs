//! Freezing and thawing the container: by version 2's cgroup, else by version 1's freezer, else by
//! SIGSTOP and SIGCONT.
//!
//! A freeze takes as long as its slowest process: one in uninterruptible sleep is frozen when it
//! wakes up. Version 2 reports the end by a change of `cgroup.events`, which is polled. Version 1
//! reports nothing, and may have to be asked again for processes that were forked meanwhile, so it is
//! looked at every few milliseconds until it is done. After 5 s the freeze is undone and reported as
//! failed. Signals are best effort: any process may send SIGCONT, and what was left in a pid namespace that
//! the container has joined is the child of another container's process, and missed.

use std::time::{Duration, Instant};

use reaper_spec::Transition;

use crate::{
    cgroup::{self, V1Cgroup, read_events},
    monitor::{
        container::monitor::{FreezeProgress, Freezing, Monitor},
        support::{connection::ReplyTo, signal::send_signals},
    },
    protocol::{Failure, Response},
    signal::Signal,
};

/// How long a freeze may take.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long version 1 is given before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How often processes are stopped that were forked meanwhile.
const STOP_ROUNDS: usize = 64;

impl Monitor {
    pub(crate) fn freeze(&mut self, reply_to: ReplyTo) -> Result<(), Failure> {
        let status = self.status();
        if status.after(Transition::Pause).is_err() || self.freezing.is_some() {
            return Err(Failure::status("pause", status));
        }
        let failed = |error: cgroup::Error| Failure::from_error("freeze the cgroup", &error);
        let progress = if let Some(cgroup) = self.cgroups.v2() {
            let begin = || {
                let events = cgroup.events_fd()?;
                cgroup.freeze(true)?;
                Ok(events)
            };
            FreezeProgress::Reported(begin().map_err(failed)?)
        } else if self.v1_freezer().is_some() {
            FreezeProgress::LookedAt(Instant::now())
        } else {
            self.stop_tree();
            self.frozen = true;
            self.reply(reply_to, Ok(Response::Done));
            return Ok(());
        };
        self.freezing = Some(Freezing {
            progress,
            reply_to,
            deadline: Instant::now() + FREEZE_TIMEOUT,
        });
        // A freeze that is done already would not be reported as a change by poll(2).
        self.freezer_ready();
        Ok(())
    }

    pub(crate) fn thaw(&mut self) -> Result<(), Failure> {
        let status = self.status();
        if status.after(Transition::Resume).is_err() {
            return Err(Failure::status("resume", status));
        }
        self.thaw_now()
            .map_err(|error| Failure::from_error("thaw the cgroup", &error))?;
        self.frozen = false;
        Ok(())
    }

    /// Lets a process of a frozen container end that SIGKILL was sent to: version 1's freezer holds
    /// it otherwise, also where another program has frozen it.
    pub(crate) fn thaw_killed(&mut self) {
        if self.v1_freezer().is_none() {
            return;
        }
        if self.cgroups.v2().is_none() {
            // A freeze that is under way would hold it again.
            self.freezing_ended();
            self.frozen = false;
        }
        if let Err(error) = self.cgroups.thaw_v1() {
            self.log(&format!("thaw the killed container: {error}"));
        }
    }

    fn thaw_now(&self) -> Result<(), cgroup::Error> {
        match (self.cgroups.v2(), self.v1_freezer()) {
            (Some(cgroup), _) => cgroup.freeze(false),
            (None, Some(cgroup)) => cgroup.freeze(false).map(drop),
            (None, None) => {
                let pids = self.pids_by_descent().into_iter().map(|entry| entry.pid);
                // What has exited meanwhile needs no signal.
                let _ = send_signals(pids.collect(), Signal::CONT);
                Ok(())
            }
        }
    }

    fn v1_freezer(&self) -> Option<&V1Cgroup> {
        self.cgroups.with_controller("freezer")
    }

    /// Stops all processes, until no new ones are found.
    fn stop_tree(&self) {
        let mut stopped = Vec::new();
        for _ in 0..STOP_ROUNDS {
            let pids = self.pids_by_descent().into_iter().map(|entry| entry.pid);
            let new: Vec<u32> = pids.filter(|pid| !stopped.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            stopped.extend(&new);
            // What has exited meanwhile needs no signal.
            let _ = send_signals(new, Signal::STOP);
        }
    }

    /// Answers the client if the freeze is done. Called when `cgroup.events` has changed, or it is time to
    /// look.
    pub(crate) fn freezer_ready(&mut self) {
        let freezer = self.cgroups.with_controller("freezer");
        let Some(freezing) = &mut self.freezing else {
            return;
        };
        let looked = match &mut freezing.progress {
            // Only reading the polled file itself resets its POLLPRI.
            FreezeProgress::Reported(events) => read_events(events)
                .map(|events| events.frozen)
                .map_err(|error| Failure::setup("look at the frozen cgroup", &error)),
            FreezeProgress::LookedAt(next) => {
                *next = Instant::now() + LOOK_AGAIN;
                // Writing again is what reaches processes that were forked meanwhile.
                let frozen = freezer.map_or(Ok(false), |cgroup| cgroup.freeze(true));
                frozen.map_err(|error| Failure::from_error("freeze the cgroup", &error))
            }
        };
        let answer = match looked {
            Ok(false) => return,
            Ok(true) => Ok(Response::Done),
            // The cgroup was removed: its files are ready for ever then.
            Err(failure) => Err(failure),
        };
        if let Some(freezing) = self.freezing.take() {
            self.frozen = answer.is_ok();
            self.reply(freezing.reply_to, answer);
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
        let Some(freezing) = &self.freezing else {
            return;
        };
        if freezing.deadline > now {
            if matches!(freezing.progress, FreezeProgress::LookedAt(next) if next <= now) {
                self.freezer_ready();
            }
            return;
        }
        let Some(freezing) = self.freezing.take() else {
            return;
        };
        // The client gets the reason why it is undone.
        let _ = self.thaw_now();
        let failure = Failure::Setup {
            step: "freeze the cgroup".to_owned(),
            message: "a process is in uninterruptible sleep".to_owned(),
            errno: None,
        };
        self.reply(freezing.reply_to, Err(failure));
    }
}
