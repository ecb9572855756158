//! The reports of forked processes, from their creation to the execution of their program.
//!
//! A child reports over its start socket that it is ready, or the step that failed. It is `created`
//! once it is ready and its streams are, too: a logger may still be starting. After start, the end
//! of the socket without a report means that execve(2) has closed it.

use std::os::fd::AsFd;

use nix::sys::signal::Signal as NixSignal;

use crate::{
    channel,
    monitor::{
        container::monitor::Monitor, process::state::LiveProcess, support::states::ProcessState,
    },
    procfs,
    protocol::{ChildReport, Failure, Response},
};

impl Monitor {
    /// Reads the report of a process, or the end of its socket.
    pub(crate) fn start_socket_ready(&mut self, number: u64) {
        let Some(index) = self.index_of_number(number) else {
            return;
        };
        let Some(start_socket) = &self.processes[index].start_socket else {
            return;
        };
        match channel::receive(start_socket.as_fd()).map(|message| message.map(|m| m.parse())) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(Some(Ok(report))) => self.report_received(index, report),
            Ok(None) => self.start_socket_closed(index),
            Ok(Some(Err(error))) | Err(error) => {
                let failure = Failure::setup("read the process's report", &error);
                self.creation_failed(index, failure);
            }
        }
    }

    fn report_received(&mut self, index: usize, report: ChildReport) {
        let process = &mut self.processes[index];
        match report {
            ChildReport::Environment => self.environment_ready(),
            ChildReport::Ready { warnings: given } => {
                let ProcessState::Creating { warnings, .. } = &mut process.state else {
                    return;
                };
                *warnings = Some(given);
                let (number, pid) = (process.number, process.pid_number());
                if let (0, Some(pid)) = (index, pid)
                    && let Err(error) = self.view.keep_namespace(pid)
                {
                    return self.creation_failed(
                        0,
                        Failure::from_error("keep the filesystem view", &error),
                    );
                }
                self.finish_creation(number);
            }
            ChildReport::Filtered { listener } => {
                if let Err(failure) = self.reach_agent(index, listener) {
                    self.setup_failed(index, failure);
                }
            }
            ChildReport::Failed {
                step,
                message,
                errno,
            } => {
                let failure = Failure::Setup {
                    step,
                    message,
                    errno,
                };
                self.setup_failed(index, failure);
            }
            ChildReport::Execve {
                program,
                message,
                errno,
            } => {
                let failure = Failure::Execve {
                    program,
                    message,
                    errno,
                };
                self.start_failed(index, failure);
            }
        }
    }

    /// A step of setting up a process failed, before its start or, the last ones, after it.
    fn setup_failed(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        if let ProcessState::Starting(_) = process.state {
            process.signal(NixSignal::SIGKILL);
            self.start_failed(index, failure);
        } else {
            self.creation_failed(index, failure);
        }
    }

    /// The child's end of the socket was closed, by execve(2) or by the child's exit.
    fn start_socket_closed(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.start_socket = None;
        match process.state {
            ProcessState::Starting(to) => {
                let holds = index == 0 && self.holds_pids;
                let executed = |live: &&LiveProcess| match holds {
                    true => procfs::is_alive(&live.identity),
                    false => procfs::has_execed(live.identity.pid).unwrap_or(false),
                };
                match process.live.as_ref().filter(executed) {
                    Some(live) => {
                        let identity = live.identity.clone();
                        process.state.enter(ProcessState::Running);
                        if index == 0 {
                            self.init_executed(to, identity);
                        } else {
                            self.reply(to, Ok(Response::Started(identity)));
                        }
                    }
                    None => self.start_failed(index, Failure::Ended),
                }
            }
            ProcessState::Creating { .. } => {
                let failure = Failure::Setup {
                    step: "prepare the process".to_owned(),
                    message: "it was killed".to_owned(),
                    errno: None,
                };
                self.creation_failed(index, failure);
            }
            ProcessState::Created
            | ProcessState::Running
            | ProcessState::Stopped(_)
            | ProcessState::FailedToCreate => {}
        }
    }

    /// Answers the client of a new process, if the process waits for its start and its streams are
    /// ready.
    pub(crate) fn finish_creation(&mut self, number: u64) {
        let Some(index) = self.index_of_number(number) else {
            return;
        };
        let process = &mut self.processes[index];
        let ProcessState::Creating { reply_to, warnings } = &mut process.state else {
            return;
        };
        match process.stdio.is_ready() {
            Err(error) => {
                self.creation_failed(index, Failure::from_error("open the streams", &error));
            }
            Ok(false) => {}
            Ok(true) => {
                let to = *reply_to;
                let Some(warnings) = warnings.take() else {
                    return;
                };
                let answer = self.created(index, warnings);
                if self.reply(to, Ok(answer)) || index > 0 {
                    self.processes[index].state.enter(ProcessState::Created);
                } else {
                    // The client has disconnected before it got the pid, so no other client knows
                    // this container.
                    self.creation_failed(index, Failure::NotFound);
                }
            }
        }
    }

    /// Keeps the reason why a program was not executed. The client is answered after the exit of
    /// the process, so no client can observe `running` after that answer.
    pub(crate) fn start_failed(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        process.start_socket = None;
        if let ProcessState::Starting(to) = process.state {
            process.failed_start.get_or_insert((to, failure));
        }
    }

    /// Gives up a process that could not be created. If it is init, the container is aborted.
    pub(crate) fn creation_failed(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        process.start_socket = None;
        let ProcessState::Creating { reply_to, .. } = process.state else {
            return;
        };
        // It may have exited, but it has not been reaped, so the pid is still its.
        process.signal(NixSignal::SIGKILL);
        if index == 0 {
            return self.abort(reply_to, failure);
        }
        process.state.enter(ProcessState::FailedToCreate);
        process.stdio.ended();
        for waiter in std::mem::take(&mut process.waiters) {
            self.reply(waiter, Err(failure.clone()));
        }
        self.reply(reply_to, Err(failure));
    }
}
