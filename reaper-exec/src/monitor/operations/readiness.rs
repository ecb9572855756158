//! What processes say before their program runs, and what becomes of those that cannot be made.

use std::os::fd::AsFd;

use nix::sys::signal::Signal as NixSignal;

use crate::{
    channel,
    monitor::{
        container::monitor::Monitor,
        process::state::{Body, Stage},
    },
    procfs,
    protocol::{Answer, ChildReport, Failure},
};

impl Monitor {
    /// A process reports, or its end of the pair has closed.
    pub(crate) fn gate_ready(&mut self, number: u64) {
        let Some(index) = self.numbered(number) else {
            return;
        };
        let Some(gate) = &self.processes[index].gate else {
            return;
        };
        match channel::receive(gate.as_fd()).map(|message| message.map(|m| m.parse())) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(Some(Ok(report))) => self.reported(index, report),
            Ok(None) => self.gate_closed(index),
            Ok(Some(Err(error))) | Err(error) => {
                let failure = Failure::setup("read the process's report", &error);
                self.not_made(index, failure);
            }
        }
    }

    fn reported(&mut self, index: usize, report: ChildReport) {
        let process = &mut self.processes[index];
        match report {
            ChildReport::Ready { warnings: given } => {
                let Stage::Preparing { warnings, .. } = &mut process.stage else {
                    return;
                };
                *warnings = Some(given);
                let (number, pid) = (process.number, process.pid_number());
                if let (0, Some(pid)) = (index, pid)
                    && let Err(error) = self.view.entered(pid)
                {
                    return self
                        .not_made(0, Failure::from_error("keep the filesystem view", &error));
                }
                self.prepared(number);
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
                self.not_made(index, failure);
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
                self.not_started(index, failure);
            }
        }
    }

    /// The child's end of the pair has closed: by `execve`, or by its death.
    fn gate_closed(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.gate = None;
        match process.stage {
            Stage::Starting(to) => {
                let executed =
                    |body: &&Body| procfs::has_execed(body.identity.pid).unwrap_or(false);
                match process.body.as_ref().filter(executed) {
                    Some(body) => {
                        let identity = body.identity.clone();
                        process.stage = Stage::Running;
                        self.reply(to, Ok(Answer::Started(identity)));
                    }
                    None => self.not_started(index, Failure::Ended),
                }
            }
            Stage::Preparing { .. } => {
                let failure = Failure::Setup {
                    step: "prepare the process".to_owned(),
                    message: "it was killed".to_owned(),
                    errno: None,
                };
                self.not_made(index, failure);
            }
            Stage::Gated | Stage::Running | Stage::Ended(_) | Stage::Discarded => {}
        }
    }

    /// A process may have become complete: it waits at its gate, and its streams are ready.
    pub(crate) fn prepared(&mut self, number: u64) {
        let Some(index) = self.numbered(number) else {
            return;
        };
        let process = &mut self.processes[index];
        let Stage::Preparing { reply_to, warnings } = &mut process.stage else {
            return;
        };
        match process.stdio.is_ready() {
            Err(error) => self.not_made(index, Failure::from_error("open the streams", &error)),
            Ok(false) => {}
            Ok(true) => {
                let to = *reply_to;
                let Some(warnings) = warnings.take() else {
                    return;
                };
                let answer = self.created(index, warnings);
                if self.reply(to, Ok(answer)) || index > 0 {
                    self.processes[index].stage = Stage::Gated;
                } else {
                    // The starter is gone, and nobody else has been told of the container.
                    self.not_made(index, Failure::NotFound);
                }
            }
        }
    }

    /// The gate was opened, and the program was not executed. Whoever opened it is told once the
    /// process has ended, so that nobody sees it run after that.
    pub(crate) fn not_started(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        process.gate = None;
        if let Stage::Starting(to) = process.stage {
            process.not_started.get_or_insert((to, failure));
        }
    }

    /// A process could not be made. For init that is the end of everything, for an exec its own.
    pub(crate) fn not_made(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        process.gate = None;
        let Stage::Preparing { reply_to, .. } = process.stage else {
            return;
        };
        // It may have ended by itself; reaped it is not.
        process.signal(NixSignal::SIGKILL);
        if index == 0 {
            return self.abort(reply_to, failure);
        }
        process.stage = Stage::Discarded;
        process.stdio.ended();
        for waiter in std::mem::take(&mut process.waiters) {
            self.reply(waiter, Err(failure.clone()));
        }
        self.reply(reply_to, Err(failure));
    }
}
