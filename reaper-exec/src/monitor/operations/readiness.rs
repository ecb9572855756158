//! What processes say before their program runs, and what becomes of those that cannot be made.

use std::os::fd::AsFd;

use nix::sys::signal::Signal as NixSignal;

use crate::{
    channel,
    monitor::{
        container::monitor::Monitor, process::state::LiveProcess, support::states::ProcessState,
    },
    procfs,
    protocol::{Answer, ChildReport, Failure},
};

impl Monitor {
    /// A process reports, or its end of the pair has closed.
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
            ChildReport::Ready { warnings: given } => {
                let ProcessState::Creating { warnings, .. } = &mut process.state else {
                    return;
                };
                *warnings = Some(given);
                let (number, pid) = (process.number, process.pid_number());
                if let (0, Some(pid)) = (index, pid)
                    && let Err(error) = self.view.entered(pid)
                {
                    return self.creation_failed(
                        0,
                        Failure::from_error("keep the filesystem view", &error),
                    );
                }
                self.finish_creation(number);
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
                self.creation_failed(index, failure);
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

    /// The child's end of the pair has closed: by `execve`, or by its death.
    fn start_socket_closed(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.start_socket = None;
        match process.state {
            ProcessState::Starting(to) => {
                let executed =
                    |live: &&LiveProcess| procfs::has_execed(live.identity.pid).unwrap_or(false);
                match process.live.as_ref().filter(executed) {
                    Some(live) => {
                        let identity = live.identity.clone();
                        process.state.enter(ProcessState::Running);
                        self.reply(to, Ok(Answer::Started(identity)));
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

    /// A process may have become complete: it waits at its start_socket, and its streams are ready.
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
                self.creation_failed(index, Failure::from_error("open the streams", &error))
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
                    // The starter is gone, and nobody else has been told of the container.
                    self.creation_failed(index, Failure::NotFound);
                }
            }
        }
    }

    /// The start_socket was opened, and the program was not executed. Whoever opened it is told once the
    /// process has ended, so that nobody sees it run after that.
    pub(crate) fn start_failed(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        process.start_socket = None;
        if let ProcessState::Starting(to) = process.state {
            process.failed_start.get_or_insert((to, failure));
        }
    }

    /// A process could not be made. For init that is the end of everything, for an exec its own.
    pub(crate) fn creation_failed(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        process.start_socket = None;
        let ProcessState::Creating { reply_to, .. } = process.state else {
            return;
        };
        // It may have ended by itself; reaped it is not.
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
