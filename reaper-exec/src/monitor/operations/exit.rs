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
        container::monitor::Monitor,
        oci_runtime::runtime::Runtime,
        support::{
            connection::ReplyTo,
            container_files::remove_runtime_files,
            node_cleanup,
            signal::killed_by,
            states::{ContainerState, ProcessState, StopCause, Stopping},
            wait::{any_children, exit_by_signal, next_ended, reap},
        },
    },
    procfs,
    protocol::{Answer, ExitRecord, Failure, VERSION},
    signal::Signal,
};

/// How long ending what init left may take. A process in uninterruptible sleep must not hold back
/// the news that init has ended.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How much longer it may take where a runtime is called for it.
const RUNTIME_DELETE_TIMEOUT: Duration = Duration::from_secs(25);

impl Monitor {
    pub(crate) fn reap(&mut self) {
        while let Some(pid) = next_ended() {
            // What the start_socket has to say, and whether the program was executed, must be read while
            // the process is still in /proc.
            if let Some(index) = self.index_of(pid) {
                let number = self.processes[index].number;
                self.start_socket_ready(number);
                // A report may be followed by the end of the pair.
                self.start_socket_ready(number);
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
        self.reap_remaining();
    }

    /// A child has ended, and was reaped.
    pub(crate) fn ended(&mut self, pid: Pid, identity: Option<ProcessIdentity>, exit: Exit) {
        if self.command_ended(pid, &exit.status) {
            return;
        }
        let Some(index) = self.index_of(pid) else {
            if let (Some(runtime), Some(identity)) = (&mut self.runtime, identity) {
                runtime.keep_unclaimed(pid, identity, exit);
            }
            let number = u32::try_from(pid.as_raw()).unwrap_or(0);
            for process in &mut self.processes {
                if process.stdio.helpers().contains(&number) {
                    process.stdio.helper_ended(number);
                }
            }
            return;
        };
        self.processes[index].start_socket = None;
        if index > 0 {
            return self.exec_ended(index, exit);
        }
        self.processes[0]
            .state
            .enter(ProcessState::Stopped(exit.clone()));
        if matches!(self.state, ContainerState::Live) {
            self.begin_stopping(StopCause::Exited(exit));
            self.kill_remaining();
        }
    }

    pub(crate) fn exec_ended(&mut self, index: usize, exit: Exit) {
        let process = &mut self.processes[index];
        if let Some(leaf) = &process.leaf {
            // What the exec left in the background stays in its leaf until init ends.
            let _ = leaf.remove();
        }
        process.stdio.ended();
        let discarded = matches!(process.state, ProcessState::FailedToCreate);
        process.state.enter(ProcessState::Stopped(exit.clone()));
        if discarded {
            // Its loggers, if it had any, are killed with it, and reaped like orphans.
            self.processes.remove(index);
            return;
        }
        self.reply_to_waiters(index, &exit);
    }

    /// Answers all who wait for the end of a process.
    fn reply_to_waiters(&mut self, index: usize, exit: &Exit) {
        let process = &mut self.processes[index];
        let failed_start = process.failed_start.take();
        for waiter in std::mem::take(&mut process.waiters) {
            self.reply(waiter, Ok(Answer::Exit(exit.clone())));
        }
        if let Some((to, failure)) = failed_start {
            self.reply(to, Err(failure));
        }
    }

    /// Stops a container whose init process could not be created. The client gets `failure` once
    /// nothing is left.
    pub(crate) fn abort(&mut self, reply_to: ReplyTo, failure: Failure) {
        if matches!(self.state, ContainerState::Aborted) {
            return;
        }
        self.begin_stopping(StopCause::CreateFailed(reply_to, failure));
    }

    fn begin_stopping(&mut self, cause: StopCause) {
        let removal = self
            .runtime
            .as_ref()
            .map_or(Duration::ZERO, |_| RUNTIME_DELETE_TIMEOUT);
        self.state.enter(ContainerState::Stopping(Stopping {
            cause,
            deadline: Instant::now() + KILL_TIMEOUT + removal,
        }));
    }

    /// Kills all that is left of the container, as the end of a pid namespace would.
    fn kill_remaining(&mut self) {
        if !any_children() {
            return;
        }
        if let Some(Err(error)) = self.cgroup.as_ref().map(ContainerCgroup::kill) {
            self.log(&format!("end what init left: {error}"));
        }
        self.kill_children();
    }

    /// The reap_remaining: whatever has left the cgroup is a child of the monitor, or becomes one when its
    /// parent ends, and that end wakes the monitor up.
    fn kill_children(&self) {
        for pid in self.remaining() {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), NixSignal::SIGKILL);
            }
        }
    }

    /// Children that are not helpers.
    fn remaining(&self) -> Vec<u32> {
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

    fn reap_remaining(&mut self) {
        if !matches!(self.state, ContainerState::Stopping(_)) {
            return;
        }
        if !self.remaining().is_empty() {
            return self.kill_children();
        }
        match self.runtime.as_mut().map_or(Ok(true), Runtime::is_over) {
            Ok(false) => {}
            Ok(true) => self.finish_stopping(),
            Err(failure) => {
                self.log(&format!("{failure:?}"));
                self.finish_stopping();
            }
        }
    }

    pub(crate) fn stop_deadline(&mut self, now: Instant) {
        let ContainerState::Stopping(stopping) = &self.state else {
            return;
        };
        if stopping.deadline > now {
            return;
        }
        self.log(&format!(
            "processes that could not be killed are left: {:?}",
            self.remaining()
        ));
        self.finish_stopping();
    }

    /// Publishes the exit, or the failure of create, and releases what the container held. Called
    /// when no process is left, or none that can be killed.
    fn finish_stopping(&mut self) {
        let ContainerState::Stopping(stopping) = &self.state else {
            return;
        };
        let cause = stopping.cause.clone();
        self.freezing_ended();
        match cause {
            StopCause::CreateFailed(to, failure) => {
                self.state.enter(ContainerState::Aborted);
                self.processes[0].stdio.ended();
                self.release();
                remove_runtime_files(&self.dir);
                self.reply(to, Err(failure));
            }
            StopCause::Exited(exit) => {
                self.publish_exit(exit);
                self.release();
            }
        }
    }

    fn publish_exit(&mut self, exit: Exit) {
        // From the end: one that was discarded is taken out of the list.
        for index in (1..self.processes.len()).rev() {
            if self.processes[index].live.is_none() && !self.processes[index].has_ended() {
                self.cancel_exec(index, killed_by(Signal::KILL));
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
        self.state.enter(ContainerState::Stopped(exit.clone()));
        self.reply_to_waiters(0, &exit);
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
    pub(crate) fn client_disconnected(&mut self, connection: u64) {
        let mut unwanted = Vec::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            process
                .waiters
                .retain(|waiter| waiter.connection != connection);
            let unseen = match process.state {
                ProcessState::Creating { .. } => true,
                // Nobody else knows the exec, so nobody would ever start or delete it.
                ProcessState::Created => process.exec.is_some(),
                ProcessState::Starting(_) | ProcessState::Running => process.tied,
                ProcessState::Stopped(_) | ProcessState::FailedToCreate => false,
            };
            if process.owner == connection && unseen {
                unwanted.push(index);
            }
        }
        for index in unwanted {
            let process = &self.processes[index];
            if let (true, Some(leaf)) = (process.tied, &process.leaf) {
                // What cannot be killed with the cgroup is killed alone, below.
                let _ = leaf.kill();
            }
            self.kill_unwanted(index);
        }
    }

    /// The monitor's own end: as the workload's, for an engine that waits for it.
    pub(crate) fn final_exit_code(self) -> i32 {
        let ContainerState::Stopped(exit) = &self.state else {
            return 1;
        };
        if self.deleted_for.is_some() {
            node_cleanup::spawn_gc(
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
            exit_by_signal(signal);
        }
        i32::try_from(exit.status.code()).unwrap_or(1)
    }
}
