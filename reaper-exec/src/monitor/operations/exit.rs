//! The exit of a process, from SIGCHLD to the reply to the clients that wait for it.
//!
//! A child is looked at before it is reaped: what it has written to its start socket, and whether
//! its program was executed, can be read only while it is in `/proc`. The exit of init stops the
//! container (`stop.rs`); that of an exec is reported at once.

use nix::{sys::signal::Signal as NixSignal, unistd::Pid};
use reaper_spec::{Exit, ProcessIdentity, Timestamp};

use crate::{
    monitor::{
        container::monitor::Monitor,
        support::{
            states::{MonitorState, ProcessState, StopCause},
            wait::{next_ended, reap},
        },
    },
    protocol::Response,
};

impl Monitor {
    /// Reads the signals that the monitor got, passes them on if that was asked for, and reaps
    /// children.
    pub(crate) fn signals_ready(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            let Ok(signal) = NixSignal::try_from(number) else {
                continue;
            };
            if signal != NixSignal::SIGCHLD
                && self.options.propagate_exit
                && matches!(self.state, MonitorState::Live)
            {
                // The pid is init's: init is not reaped while the container is live.
                self.processes[0].signal(signal);
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        while let Some(pid) = next_ended() {
            if let Some(index) = self.index_of(pid) {
                let number = self.processes[index].number;
                self.start_socket_ready(number);
                // The child's report may be followed by the end of the socket.
                self.start_socket_ready(number);
            }
            let identity = self.backend.identify(pid);
            if let Some(status) = reap(pid) {
                self.killed.reaped(pid);
                let number = pid.as_raw().unsigned_abs();
                self.dismissed_runner.take_if(|runner| *runner == number);
                self.note_end();
                let at = Timestamp::now();
                self.child_exited(pid, identity, Exit::new(status, at));
            }
        }
        self.reap_remaining();
    }

    /// Handles the exit of a child that was reaped.
    pub(crate) fn child_exited(&mut self, pid: Pid, identity: Option<ProcessIdentity>, exit: Exit) {
        let backend = self.backend;
        if backend.helper_exited(self, pid, &exit) {
            return;
        }
        let Some(index) = self.index_of(pid) else {
            backend.unknown_child_exited(self, pid, identity, exit);
            return self.logger_exited(pid.as_raw().unsigned_abs());
        };
        self.processes[index].start_socket = None;
        if index > 0 {
            return self.exec_exited(index, exit);
        }
        let state = ProcessState::Stopped(exit.clone());
        self.processes[0].state.enter(state);
        if matches!(self.state, MonitorState::Live) {
            self.begin_stopping(StopCause::Exited(exit));
            self.kill_remaining();
        }
    }

    fn logger_exited(&mut self, pid: u32) {
        for process in &mut self.processes {
            if process.stdio.helpers().contains(&pid) {
                process.stdio.helper_ended(pid);
            }
        }
    }

    /// Reports the exit of an exec'd process.
    pub(crate) fn exec_exited(&mut self, index: usize, exit: Exit) {
        let process = &mut self.processes[index];
        if let Some(leaf) = &process.leaf {
            // This fails while the exec's background processes are in the leaf; they are killed
            // when init exits.
            let _ = leaf.remove();
        }
        process.stdio.ended();
        let is_unknown = matches!(process.state, ProcessState::FailedToCreate);
        process.state.enter(ProcessState::Stopped(exit.clone()));
        if is_unknown {
            // Dropping it kills its loggers; they are then reaped as unknown children.
            self.processes.remove(index);
            return;
        }
        self.reply_to_waiters(index, &exit);
    }

    /// Answers the clients that wait for the exit of a process, and the one that failed to start
    /// it.
    pub(crate) fn reply_to_waiters(&mut self, index: usize, exit: &Exit) {
        let process = &mut self.processes[index];
        let failed_start = process.failed_start.take();
        let waiters = std::mem::take(&mut process.waiters);
        // First: a client that waits may end the monitor when it gets the exit, and then the reason would
        // be lost.
        if let Some((to, failure)) = failed_start {
            self.reply(to, Err(failure));
        }
        for waiter in waiters {
            self.reply(waiter, Ok(Response::Exit(exit.clone())));
        }
    }
}
