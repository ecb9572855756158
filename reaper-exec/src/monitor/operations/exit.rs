//! Ends: of processes, and of the container.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal as NixSignal, kill},
    unistd::Pid,
};
use reaper_spec::{Exit, ExitStatus, ProcessIdentity, Timestamp};
use reaper_state::durable;

use crate::{
    cgroup::ContainerCgroup,
    monitor::{
        container::monitor::{Ending, Monitor, Outcome, Phase},
        oci_runtime::runtime::Runtime,
        process::state::Stage,
        support::{
            connection::ReplyTo,
            container_files::remove_traces,
            node_cleanup,
            signal::killed_by,
            wait::{any_children, die_by, next_ended, reap},
        },
    },
    procfs,
    protocol::{Answer, ExitRecord, Failure, VERSION},
    signal::Signal,
};

/// How long ending what init left may take. A process in uninterruptible sleep must not hold back
/// the news that init has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much longer it may take where a runtime is called for it.
const REMOVAL: Duration = Duration::from_secs(25);

impl Monitor {
    pub(crate) fn reap(&mut self) {
        while let Some(pid) = next_ended() {
            // What the gate has to say, and whether the program was executed, must be read while
            // the process is still in /proc.
            if let Some(index) = self.index_of(pid) {
                let number = self.processes[index].number;
                self.gate_ready(number);
                // A report may be followed by the end of the pair.
                self.gate_ready(number);
            }
            // It may be a process that the runtime has not named yet.
            let identity = match &self.runtime {
                Some(_) => procfs::identify(pid.as_raw().unsigned_abs()).ok(),
                None => None,
            };
            if let Some(status) = reap(pid) {
                let at = Timestamp::now();
                self.ended(pid, identity, Exit { status, at });
            }
        }
        self.sweep();
    }

    /// A child has ended, and was reaped.
    pub(crate) fn ended(&mut self, pid: Pid, identity: Option<ProcessIdentity>, exit: Exit) {
        if self.command_ended(pid, &exit.status) {
            return;
        }
        let Some(index) = self.index_of(pid) else {
            if let (Some(runtime), Some(identity)) = (&mut self.runtime, identity) {
                runtime.ended_early(pid, identity, exit);
            }
            let number = u32::try_from(pid.as_raw()).unwrap_or(0);
            for process in &mut self.processes {
                if process.stdio.helpers().contains(&number) {
                    process.stdio.helper_ended(number);
                }
            }
            return;
        };
        self.processes[index].gate = None;
        if index > 0 {
            return self.exec_ended(index, exit);
        }
        self.processes[0].stage = Stage::Ended(exit.clone());
        if matches!(self.phase, Phase::Alive) {
            self.begin_ending(Outcome::Exit(exit));
            self.end_the_rest();
        }
    }

    pub(crate) fn exec_ended(&mut self, index: usize, exit: Exit) {
        let process = &mut self.processes[index];
        if let Some(leaf) = &process.leaf {
            // What the exec left in the background stays in its leaf until init ends.
            let _ = leaf.remove();
        }
        process.stdio.ended();
        let discarded = matches!(process.stage, Stage::Discarded);
        process.stage = Stage::Ended(exit.clone());
        if discarded {
            // Its loggers, if it had any, are killed with it, and reaped like orphans.
            self.processes.remove(index);
            return;
        }
        self.tell(index, &exit);
    }

    /// Answers all who wait for the end of a process.
    fn tell(&mut self, index: usize, exit: &Exit) {
        let process = &mut self.processes[index];
        let not_started = process.not_started.take();
        for waiter in std::mem::take(&mut process.waiters) {
            self.reply(waiter, Ok(Answer::Exit(exit.clone())));
        }
        if let Some((to, failure)) = not_started {
            self.reply(to, Err(failure));
        }
    }

    /// The container could not be made: what there is of it is ended, then its maker is told.
    pub(crate) fn abort(&mut self, reply_to: ReplyTo, failure: Failure) {
        self.begin_ending(Outcome::Abort(reply_to, failure));
    }

    fn begin_ending(&mut self, outcome: Outcome) {
        let removal = self.runtime.as_ref().map_or(Duration::ZERO, |_| REMOVAL);
        self.phase = Phase::Ending(Ending {
            outcome,
            deadline: Instant::now() + PATIENCE + removal,
        });
    }

    /// Kills all that is left of the container, as the end of a pid namespace would.
    fn end_the_rest(&mut self) {
        if !any_children() {
            return;
        }
        if let Some(Err(error)) = self.cgroup.as_ref().map(ContainerCgroup::kill) {
            self.log(&format!("end what init left: {error}"));
        }
        self.kill_children();
    }

    /// The sweep: whatever has left the cgroup is a child of the monitor, or becomes one when its
    /// parent ends, and that end wakes the monitor up.
    fn kill_children(&self) {
        for pid in self.left() {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), NixSignal::SIGKILL);
            }
        }
    }

    /// Children that are not helpers.
    fn left(&self) -> Vec<u32> {
        if !any_children() {
            return Vec::new();
        }
        let helpers: Vec<u32> = self
            .processes
            .iter()
            .flat_map(|process| process.stdio.helpers())
            .chain(self.runtime.iter().flat_map(Runtime::commands))
            .collect();
        let children = procfs::children(std::process::id()).unwrap_or_default();
        children
            .into_iter()
            .filter(|pid| !helpers.contains(pid))
            .collect()
    }

    fn sweep(&mut self) {
        if !matches!(self.phase, Phase::Ending(_)) {
            return;
        }
        if !self.left().is_empty() {
            return self.kill_children();
        }
        match self.runtime.as_mut().map_or(Ok(true), Runtime::is_over) {
            Ok(false) => {}
            Ok(true) => self.finish(),
            Err(failure) => {
                self.log(&format!("{failure:?}"));
                self.finish();
            }
        }
    }

    pub(crate) fn ending_deadline(&mut self, now: Instant) {
        let Phase::Ending(ending) = &self.phase else {
            return;
        };
        if ending.deadline > now {
            return;
        }
        self.log(&format!(
            "processes that could not be killed are left: {:?}",
            self.left()
        ));
        self.finish();
    }

    /// Nothing is left of the container, or nothing that could be ended.
    fn finish(&mut self) {
        let Phase::Ending(ending) = std::mem::replace(&mut self.phase, Phase::Aborted) else {
            return;
        };
        self.freezing_ended();
        match ending.outcome {
            Outcome::Abort(to, failure) => {
                self.processes[0].stdio.ended();
                self.release();
                remove_traces(&self.dir);
                self.reply(to, Err(failure));
            }
            Outcome::Exit(exit) => {
                self.announce(exit);
                self.release();
            }
        }
    }

    fn announce(&mut self, exit: Exit) {
        // From the end: one that was discarded is taken out of the list.
        for index in (1..self.processes.len()).rev() {
            if self.processes[index].body.is_none() && !self.processes[index].has_ended() {
                self.end_unmade(index, killed_by(Signal::KILL));
            } else if !self.processes[index].has_ended() {
                let reason = "it could not be killed with its container".to_owned();
                let status = ExitStatus::Lost { reason };
                self.exec_ended(
                    index,
                    Exit {
                        status,
                        at: Timestamp::now(),
                    },
                );
            }
        }
        self.init().stdio.ended();
        let record = ExitRecord {
            version: VERSION,
            exit: exit.clone(),
        };
        let written = serde_json::to_vec(&record)
            .map_err(std::io::Error::from)
            .and_then(|json| durable::write(&self.dir.exit_file(), &json));
        if let Err(error) = written {
            // The clients that wait are told all the same: they can still commit it themselves.
            self.log(&format!("record the exit: {error}"));
        }
        self.phase = Phase::Ended(exit.clone());
        self.tell(0, &exit);
    }

    /// Gives back what the container had on the node.
    fn release(&mut self) {
        if let Err(error) = self.view.release() {
            self.log(&format!("release the filesystem view: {error}"));
        }
        if let Some(Err(error)) = self.cgroup.as_ref().map(ContainerCgroup::remove) {
            self.log(&format!("remove the cgroup: {error}"));
        }
        if let Some(runtime) = &self.runtime {
            runtime.remove_files();
        }
    }

    /// A client is gone. What it had asked for and was not told about is given up.
    pub(crate) fn abandoned(&mut self, connection: u64) {
        let mut given_up = Vec::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            process
                .waiters
                .retain(|waiter| waiter.connection != connection);
            let unseen = match process.stage {
                Stage::Preparing { .. } => true,
                // Nobody else knows the exec, so nobody would ever start or delete it.
                Stage::Gated => process.exec.is_some(),
                Stage::Starting(_) | Stage::Running => process.tied,
                Stage::Ended(_) | Stage::Discarded => false,
            };
            if process.owner == connection && unseen {
                given_up.push(index);
            }
        }
        for index in given_up {
            let process = &self.processes[index];
            if let (true, Some(leaf)) = (process.tied, &process.leaf) {
                // What cannot be killed with the cgroup is killed alone, below.
                let _ = leaf.kill();
            }
            self.give_up(index);
        }
    }

    /// The monitor's own end: as the workload's, for an engine that waits for it.
    pub(crate) fn farewell(self) -> i32 {
        let Phase::Ended(exit) = &self.phase else {
            return 1;
        };
        if self.deleted_for.is_some() {
            node_cleanup::leave_to_child(
                &*self.setup.isolation,
                &self.view_request,
                self.oom_score_adj,
                self.options.log.as_deref(),
            );
        }
        if !self.options.mirror_exit {
            return 0;
        }
        if let ExitStatus::Signaled { signal, .. } = exit.status {
            die_by(signal);
        }
        i32::try_from(exit.status.code()).unwrap_or(1)
    }
}
