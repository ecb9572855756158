//! Ends: of gates, of processes, of the container.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, kill, raise, sigprocmask},
    unistd::Pid,
};
use reaper_spec::{Exit, ExitStatus, Timestamp};
use reaper_state::durable;
use rustix::process::WaitOptions;

use super::{
    connection::ReplyTo,
    process::Stage,
    server::{Monitor, Phase},
};
use crate::{
    cgroup::ContainerCgroup,
    channel, procfs,
    protocol::{Answer, ChildReport, ExitRecord, Failure, VERSION},
    sys,
};

/// How long ending what init left may take. A process in uninterruptible sleep must not hold back
/// the news that init has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// Init has ended, and what it started is being ended.
pub(super) struct Ending {
    outcome: Outcome,
    deadline: Instant,
}

enum Outcome {
    /// The container lived.
    Exit(Exit),
    /// It could not be made; the starter is told when nothing is left.
    Abort(ReplyTo, Failure),
}

impl Ending {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Monitor {
    /// A process reports, or its end of the pair has closed.
    pub(super) fn gate_ready(&mut self, index: usize) {
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
            ChildReport::Ready { warnings } => {
                let Stage::Preparing(to) = process.stage else {
                    return;
                };
                process.stage = Stage::Gated;
                let number = process.pid_number();
                let kept = if index == 0 {
                    self.view.entered(number)
                } else {
                    Ok(())
                };
                if let Err(error) = kept {
                    let failure = super::birth::described("keep the filesystem view", &error);
                    self.processes[0].stage = Stage::Preparing(to);
                    return self.not_made(0, failure);
                }
                let answer = self.created(index, warnings);
                self.reply(to, Ok(answer));
            }
            ChildReport::Failed {
                step,
                message,
                errno,
            } => {
                self.not_made(
                    index,
                    Failure::Setup {
                        step,
                        message,
                        errno,
                    },
                );
            }
            ChildReport::Execve {
                program,
                message,
                errno,
            } => {
                process.gate = None;
                if let Stage::Starting(to) = process.stage {
                    process.stage = Stage::Running;
                    self.reply(
                        to,
                        Err(Failure::Execve {
                            program,
                            message,
                            errno,
                        }),
                    );
                }
            }
        }
    }

    /// The child's end of the pair has closed: by `execve`, or by its death.
    fn gate_closed(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.gate = None;
        match process.stage {
            Stage::Starting(to) => {
                let executed = procfs::has_execed(process.pid_number()).unwrap_or(false);
                process.stage = Stage::Running;
                let answer = if executed {
                    Ok(Answer::Done)
                } else {
                    Err(Failure::Ended)
                };
                self.reply(to, answer);
            }
            Stage::Preparing(_) => {
                let failure = Failure::Setup {
                    step: "prepare the process".to_owned(),
                    message: "it was killed".to_owned(),
                    errno: None,
                };
                self.not_made(index, failure);
            }
            Stage::Gated | Stage::Running | Stage::Ended(_) => {}
        }
    }

    /// A process could not be made. For init that is the end of everything, for an exec its own.
    fn not_made(&mut self, index: usize, failure: Failure) {
        let process = &mut self.processes[index];
        process.gate = None;
        let Stage::Preparing(to) = process.stage else {
            return;
        };
        // It may have ended by itself; reaped it is not.
        let _ = kill(process.pid, NixSignal::SIGKILL);
        if index == 0 {
            self.phase = Phase::Ending(Ending {
                outcome: Outcome::Abort(to, failure),
                deadline: soon(),
            });
        } else {
            // The orphan is reaped like any other.
            let process = self.processes.remove(index);
            for waiter in process.waiters {
                self.reply(waiter, Err(failure.clone()));
            }
            self.reply(to, Err(failure));
        }
    }

    pub(super) fn signals_ready(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            let Ok(signal) = NixSignal::try_from(number) else {
                continue;
            };
            if signal != NixSignal::SIGCHLD
                && self.options.mirror_exit
                && matches!(self.phase, Phase::Alive)
            {
                // Init has not been reaped while the container is alive.
                let _ = kill(self.processes[0].pid, signal);
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        while let Some(pid) = next_ended() {
            // What the gate has to say, and whether the program was executed, must be read while
            // the process is still in /proc.
            if let Some(index) = self.index_of(pid) {
                self.gate_ready(index);
                self.gate_ready_again(pid);
            }
            if let Some(status) = reap(pid) {
                self.ended(
                    pid,
                    Exit {
                        status,
                        at: Timestamp::now(),
                    },
                );
            }
        }
        self.sweep();
    }

    /// A report may be followed by the end of the pair.
    fn gate_ready_again(&mut self, pid: Pid) {
        if let Some(index) = self.index_of(pid) {
            self.gate_ready(index);
        }
    }

    fn index_of(&self, pid: Pid) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.pid == pid && !process.has_ended())
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        let Some(index) = self.index_of(pid) else {
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
            self.phase = Phase::Ending(Ending {
                outcome: Outcome::Exit(exit),
                deadline: soon(),
            });
            self.end_the_rest();
        }
    }

    fn exec_ended(&mut self, index: usize, exit: Exit) {
        let process = &mut self.processes[index];
        process.stage = Stage::Ended(exit.clone());
        process.stdio.ended();
        if let Some(leaf) = &process.leaf {
            // What the exec left in the background stays in its leaf until init ends.
            let _ = leaf.remove();
        }
        for waiter in std::mem::take(&mut process.waiters) {
            self.reply(waiter, Ok(Answer::Exit(exit.clone())));
        }
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
        if self.left().is_empty() {
            self.finish();
        } else {
            self.kill_children();
        }
    }

    pub(super) fn ending_deadline(&mut self, now: Instant) {
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
        match ending.outcome {
            Outcome::Abort(to, failure) => {
                self.processes[0].stdio.ended();
                self.release();
                super::birth::remove_traces(&self.dir);
                self.reply(to, Err(failure));
            }
            Outcome::Exit(exit) => {
                self.announce(exit);
                self.release();
            }
        }
    }

    fn announce(&mut self, exit: Exit) {
        for index in 1..self.processes.len() {
            if !self.processes[index].has_ended() {
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
        for waiter in std::mem::take(&mut self.init().waiters) {
            self.reply(waiter, Ok(Answer::Exit(exit.clone())));
        }
    }

    /// Gives back what the container had on the node.
    fn release(&mut self) {
        if let Err(error) = self.view.release() {
            self.log(&format!("release the filesystem view: {error}"));
        }
        if let Some(Err(error)) = self.cgroup.as_ref().map(ContainerCgroup::remove) {
            self.log(&format!("remove the cgroup: {error}"));
        }
    }

    /// A client is gone. What it had asked for and was not told about is given up.
    pub(super) fn abandoned(&mut self, connection: u64) {
        let mut gated = Vec::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            process
                .waiters
                .retain(|waiter| waiter.connection != connection);
            let unseen = match process.stage {
                Stage::Preparing(_) => true,
                // Nobody else knows the exec, so nobody would ever start or delete it.
                Stage::Gated => process.exec.is_some(),
                _ => false,
            };
            if process.owner == connection && unseen {
                gated.push(index);
            }
        }
        for index in gated {
            let _ = kill(self.processes[index].pid, NixSignal::SIGKILL);
        }
    }

    /// The monitor's own end: as the workload's, for an engine that waits for it.
    pub(super) fn farewell(self) -> i32 {
        let Phase::Ended(exit) = &self.phase else {
            return 1;
        };
        if !self.options.mirror_exit {
            return 0;
        }
        if let ExitStatus::Signaled { signal, .. } = exit.status {
            die_by(signal);
        }
        i32::try_from(exit.status.code()).unwrap_or(1)
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Ends this process by a signal, without a core dump. Returns only if the signal cannot do that.
fn die_by(signal: i32) {
    let Ok(signal) = NixSignal::try_from(signal) else {
        return;
    };
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    sys::default_signals();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let _ = raise(signal);
}

/// A child that has ended and has not been reaped.
fn next_ended() -> Option<Pid> {
    loop {
        match sys::next_ended() {
            Err(Errno::EINTR) => {}
            ended => return ended.ok().flatten(),
        }
    }
}

fn any_children() -> bool {
    sys::next_ended() != Err(Errno::ECHILD)
}

/// Reaps a child that has ended.
fn reap(pid: Pid) -> Option<ExitStatus> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw());
    let (_, status) = rustix::process::waitpid(pid, WaitOptions::NOHANG)
        .ok()
        .flatten()?;
    if let Some(signal) = status.terminating_signal() {
        const CORE: i32 = 0x80;
        return Some(ExitStatus::Signaled {
            signal,
            core: status.as_raw() & CORE != 0,
        });
    }
    let code = u8::try_from(status.exit_status()?).unwrap_or(u8::MAX);
    Some(ExitStatus::Exited { code })
}
