//! Stopping the container once init has exited or could not be created.
//!
//! What init has started is killed, as the end of a pid namespace would: first by the cgroup,
//! then, for processes outside of the cgroup, as children of the monitor. The monitor is a
//! subreaper, so a process becomes its child at the latest when the process's parent exits, which
//! wakes the monitor up. In a pid namespace of another container's it becomes a child of the first
//! process there: so the monitor waits for what is in the cgroup, one process after the other.
//! After 5 s (more if an OCI runtime has to delete the container) the monitor stops waiting: a
//! process in uninterruptible sleep must not hold back the exit of init.
//!
//! The exit is written to `exit.json`, durably, before a client is told of it.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use reaper_spec::{Exit, ExitStatus, Timestamp};

use crate::{
    monitor::{
        container::{hooks::AfterHooks, monitor::Monitor},
        support::{
            connection::ReplyTo,
            kill_deadline::KillDeadline,
            signal::killed_by,
            states::{MonitorState, ProcessState, StopCause, Stopping},
            wait::any_children,
        },
    },
    procfs,
    protocol::Failure,
    records,
    signal::Signal,
};

/// How long the monitor waits before it writes an exit again that could not be recorded, because
/// the state root is full or read-only.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// How long each of the processes that init left may take to end after it was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

impl Monitor {
    /// Stops a container whose init process could not be created. The client gets `failure` once
    /// nothing is left.
    pub(crate) fn abort(&mut self, reply_to: ReplyTo, failure: Failure) {
        if !matches!(self.state, MonitorState::Aborted) {
            // The hooks of the creation have no purpose any more.
            self.hook_run = None;
            self.begin_stopping(StopCause::CreateFailed(reply_to, failure));
        }
    }

    pub(crate) fn begin_stopping(&mut self, cause: StopCause) {
        self.stop_within(KILL_TIMEOUT + self.backend.delete_timeout(), cause);
    }

    fn stop_within(&mut self, limit: Duration, cause: StopCause) {
        self.count_oom_kills();
        let deadline = KillDeadline::new(Instant::now(), limit);
        let stopping = Stopping { cause, deadline };
        self.state.enter(MonitorState::Stopping(stopping));
    }

    /// Notes that init was killed, or that an OCI runtime is doing so.
    pub(crate) fn expect_exit(&mut self) {
        if self.kill_deadline.is_none() {
            let limit = KILL_TIMEOUT + self.backend.kill_timeout();
            self.kill_deadline = Some(KillDeadline::new(Instant::now(), limit));
        }
    }

    /// A process has ended, which may be one of those that were killed.
    pub(crate) fn note_end(&mut self) {
        let now = Instant::now();
        if let Some(deadline) = &mut self.kill_deadline {
            deadline.progressed(now);
        }
        if let MonitorState::Stopping(stopping) = &mut self.state {
            stopping.deadline.progressed(now);
        }
    }

    /// Stops the container although init has not exited: it was killed, and the kernel lets it end
    /// only when an uninterruptible sleep does.
    pub(crate) fn kill_deadline(&mut self, now: Instant) {
        if self
            .kill_deadline
            .is_none_or(|deadline| deadline.at() > now)
        {
            return;
        }
        self.kill_deadline = None;
        if !matches!(self.state, MonitorState::Live) {
            return;
        }
        let process = self.processes[0].pid_number().map(procfs::describe);
        let reason = format!(
            "process {} was killed and does not exit",
            process.unwrap_or_default()
        );
        self.log(&reason);
        let status = ExitStatus::Unknown { reason };
        let at = Timestamp::now();
        let exit = Exit::new(status, at);
        self.processes[0]
            .state
            .enter(ProcessState::Stopped(exit.clone()));
        // A runtime has nothing to delete as long as the process is there.
        self.stop_within(KILL_TIMEOUT, StopCause::Exited(exit));
        self.give_up_kills();
        self.kill_remaining();
    }

    /// Kills all that is left of the container.
    pub(crate) fn kill_remaining(&mut self) {
        if !any_children() && !self.pids.is_joined() {
            return;
        }
        if let Err(error) = self.cgroups.kill() {
            self.log(&format!("end what init left: {error}"));
        }
        self.kill_children();
    }

    pub(crate) fn kill_children(&mut self) {
        let remaining = self.remaining();
        self.killed.kill(remaining);
    }

    /// The monitor's children, without loggers and commands of a runtime.
    pub(crate) fn remaining(&self) -> Vec<u32> {
        if !any_children() {
            return Vec::new();
        }
        let mut helpers = self.backend.helpers(self);
        for process in &self.processes {
            helpers.extend(process.stdio.helpers());
        }
        helpers.extend(self.hook_run.iter().map(|hooks| hooks.runner.pid()));
        // It outlives this process where that ends first.
        helpers.extend(self.dismissed_runner);
        let mut children = procfs::children(std::process::id()).unwrap_or_default();
        children.retain(|pid| !helpers.contains(pid));
        children
    }

    /// Goes on with stopping after children were reaped.
    pub(crate) fn reap_remaining(&mut self) {
        if !self.killed.is_look_due() {
            return;
        }
        match self.state {
            MonitorState::Stopping(_) => {}
            // A hook that was run meanwhile has left it.
            MonitorState::Stopped(_) => return self.kill_children(),
            _ => return,
        }
        let remaining = self.remaining();
        if !remaining.is_empty() {
            return self.killed.kill(remaining);
        }
        self.stray = self.next_stray();
        if self.stray.is_some() {
            return;
        }
        let backend = self.backend;
        if backend.delete(self) {
            return self.finish_stopping();
        }
        if let MonitorState::Stopping(stopping) = &mut self.state {
            let deleted_by = Instant::now() + backend.delete_timeout();
            stopping.deadline.extend_to(deleted_by);
        }
    }

    /// A process of the container that is not this process's child and has not exited, after it was killed.
    fn next_stray(&self) -> Option<OwnedFd> {
        if !self.pids.is_joined() {
            return None;
        }
        let listed = self.cgroups.pids().ok()?;
        if listed.is_empty() {
            return None;
        }
        // What was forked meanwhile.
        if let Err(error) = self.cgroups.kill() {
            self.log(&format!("end what init left: {error}"));
        }
        listed.into_iter().find_map(|(pid, _)| {
            let identity = procfs::identify(pid).ok()?;
            let opened = procfs::open_pidfd(&identity).ok()?;
            // It may have been another process's pid by then.
            let is_still = self.cgroups.pids().ok()?.iter().any(|(one, _)| *one == pid);
            (is_still && procfs::is_alive(&identity)).then_some(opened)
        })
    }

    /// Stops waiting for processes that could not be killed.
    pub(crate) fn stop_deadline(&mut self, now: Instant) {
        let MonitorState::Stopping(stopping) = &self.state else {
            return;
        };
        if stopping.deadline.at() > now {
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
        let MonitorState::Stopping(stopping) = &self.state else {
            return;
        };
        let cause = stopping.cause.clone();
        self.stray = None;
        self.freezing_ended();
        self.oom_ended();
        match cause {
            StopCause::CreateFailed(to, failure) => {
                self.state.enter(MonitorState::Aborted);
                self.processes[0].stdio.ended();
                let undone = self.view.undo();
                self.release(undone);
                self.end_hooks(AfterHooks::Abort(to, failure));
            }
            StopCause::Exited(exit) => {
                self.publish_exit(exit);
                let released = self.view.release();
                self.release(released);
            }
        }
    }

    /// Records the exit of init, and reports it to the clients that wait. Exits of execs come
    /// first.
    fn publish_exit(&mut self, exit: Exit) {
        // From the end of the list, since one that failed to be created is removed from it.
        for index in (1..self.processes.len()).rev() {
            if self.processes[index].live.is_none() && !self.processes[index].has_ended() {
                self.cancel_exec(index, killed_by(Signal::KILL));
            } else if !self.processes[index].has_ended() {
                let reason = "it could not be killed with its container".to_owned();
                let status = ExitStatus::Unknown { reason };
                let at = Timestamp::now();
                self.exec_exited(index, Exit::new(status, at));
            }
        }
        self.init().stdio.ended();
        self.state.enter(MonitorState::Stopped(exit.clone()));
        self.record_exit();
        self.reply_to_waiters(0, &exit);
    }

    /// Writes `exit.json`. Where that fails the monitor stays, and answers with the exit, until it
    /// can be written or the container is deleted. Clients that wait get it nevertheless.
    pub(crate) fn record_exit(&mut self) {
        let MonitorState::Stopped(exit) = &self.state else {
            return;
        };
        match records::write_exit(&self.dir, exit) {
            Ok(()) => self.record_again = None,
            // The container's folder was removed, so no client will ask.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.record_again = None,
            Err(error) => {
                if self.record_again.is_none() {
                    self.log(&format!("record the exit: {error}"));
                }
                self.record_again = Some(Instant::now() + RECORD_PAUSE);
            }
        }
    }

    /// Releases what the container had on the host: its cgroup, the runtime's files, and its view, of
    /// which `released` is the result.
    fn release(&mut self, released: Result<(), reaper_overlay::Error>) {
        if let Err(error) = released {
            self.log(&format!("release the filesystem view: {error}"));
        }
        if let Err(error) = self.cgroups.remove() {
            self.log(&format!("remove the cgroup: {error}"));
        }
        if let Some(runtime) = &self.runtime {
            runtime.remove_files();
        }
    }
}
