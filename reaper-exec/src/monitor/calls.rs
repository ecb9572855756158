//! What clients ask.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use reaper_spec::{ExecId, Status, Transition};

use super::{
    connection::ReplyTo,
    plan::remove_traces,
    process::{Process, Stage},
    server::{Monitor, Phase, parse},
};
use crate::{
    channel::{self, Message},
    executor::{Created, Observation},
    procfs,
    protocol::{Answer, Call, Failure, Go},
    signal::Signal,
};

/// An answer now, or `None` where it comes later.
type Now = Result<Option<Answer>, Failure>;

impl Monitor {
    pub(super) fn answer(&mut self, connection: u64, mut message: Message) {
        let request = match parse(&message) {
            Ok(request) => request,
            Err(response) => {
                let to = ReplyTo {
                    connection,
                    serial: response.serial,
                };
                self.reply(to, response.answer);
                return;
            }
        };
        let to = ReplyTo {
            connection,
            serial: request.envelope.serial,
        };
        let descriptors = std::mem::take(&mut message.descriptors);
        if let Some(answer) = self.call(request.call, descriptors, to).transpose() {
            self.reply(to, answer);
        }
    }

    fn call(&mut self, call: Call, descriptors: Vec<OwnedFd>, to: ReplyTo) -> Now {
        match call {
            Call::Create(_) | Call::Bury { .. } | Call::Forget(_) | Call::Housekeep(_) => {
                Err(Failure::AlreadyExists)
            }
            Call::Exec(call) => {
                self.may_exec()?;
                if self.find(Some(&call.exec)).is_ok() {
                    return Err(Failure::AlreadyExists);
                }
                self.make_exec(*call, descriptors, to).map(|()| None)
            }
            Call::Start { exec } => self.start(exec.as_ref(), &descriptors, to),
            Call::Kill { exec, signal, all } => self.kill(exec.as_ref(), signal, all, to),
            Call::Wait { exec } => {
                let process = self.find(exec.as_ref())?;
                match &process.stage {
                    // The end of init is known when all that it started has ended.
                    Stage::Ended(exit) if process.exec.is_some() => {
                        Ok(Some(Answer::Exit(exit.clone())))
                    }
                    _ => match &self.phase {
                        Phase::Ended(exit) => Ok(Some(Answer::Exit(exit.clone()))),
                        _ => {
                            self.find(exec.as_ref())?.waiters.push(to);
                            Ok(None)
                        }
                    },
                }
            }
            Call::Resize { exec, size } => {
                let process = self.find(exec.as_ref())?;
                if let Some(later) = &mut process.later {
                    later.resize(size);
                }
                let resized = process.stdio.resize(size);
                resized
                    .map_err(|error| Failure::setup("resize the terminal", &error))
                    .map(done)
            }
            Call::CloseStdin { exec } => {
                let process = self.find(exec.as_ref())?;
                process.stdio.close_stdin();
                if let Some(later) = &mut process.later {
                    later.close_stdin();
                }
                Ok(done(()))
            }
            Call::Pause if self.runtime.is_some() => {
                self.freeze_by_runtime(Transition::Pause, to).map(|()| None)
            }
            Call::Resume if self.runtime.is_some() => self
                .freeze_by_runtime(Transition::Resume, to)
                .map(|()| None),
            Call::Pause => self.pause(to).map(|()| None),
            Call::Resume => self.resume().map(done),
            Call::Pids => Ok(Some(Answer::Pids(self.pids()))),
            Call::Stats => Ok(Some(Answer::Stats(self.stats()))),
            Call::Observe => Ok(Some(Answer::Observed(self.observe()))),
            Call::Delete { exec } => self.delete(exec.as_ref(), to.connection).map(Some),
        }
    }

    pub(super) fn find(&mut self, exec: Option<&ExecId>) -> Result<&mut Process, Failure> {
        let found = self
            .processes
            .iter_mut()
            .find(|process| process.exec.as_ref() == exec && !process.is_forgotten());
        found.ok_or(Failure::NotFound)
    }

    fn may_exec(&self) -> Result<(), Failure> {
        let refused = |status| Err(Failure::status("exec in", status));
        match self.status() {
            // What init started is being ended, the new process would be, too.
            _ if !matches!(self.phase, Phase::Alive) => refused(Status::Stopped),
            Status::Running if self.freezing.is_some() => refused(Status::Paused),
            Status::Running => Ok(()),
            status => refused(status),
        }
    }

    fn start(&mut self, exec: Option<&ExecId>, streams: &[OwnedFd], to: ReplyTo) -> Now {
        if !matches!(self.phase, Phase::Alive) {
            return Err(Failure::status("start", Status::Stopped));
        }
        // A frozen process would not come through its gate, nor say so.
        if self.frozen || self.freezing.is_some() {
            return Err(Failure::status("start", Status::Paused));
        }
        let driven = self.runtime.is_some();
        let process = self.find(exec)?;
        if driven && matches!(process.stage, Stage::Gated) {
            if !streams.is_empty() {
                return Err(Failure::Unsupported {
                    operation: "give a process other streams when it starts".to_owned(),
                    reason: "the runtime has given it those of its creation".to_owned(),
                });
            }
            return self.start_by_runtime(exec, to).map(|()| None);
        }
        let (Stage::Gated, Some(gate)) = (&process.stage, &process.gate) else {
            let status = match process.stage {
                // Somebody else's start is under way.
                Stage::Starting(_) => Status::Running,
                _ => process_status(process),
            };
            return Err(Failure::status("start", status));
        };
        let streams: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
        match channel::send(gate.as_fd(), &Go, &streams) {
            Ok(()) => {
                process.stage = Stage::Starting(to);
                Ok(None)
            }
            // It was killed at its gate; its end is about to be seen.
            Err(_) => Err(Failure::Ended),
        }
    }

    fn kill(&mut self, exec: Option<&ExecId>, signal: Signal, all: bool, to: ReplyTo) -> Now {
        let (over, ending) = match self.phase {
            Phase::Alive => (false, false),
            Phase::Ending(_) => (false, true),
            Phase::Ended(_) | Phase::Aborted => (true, false),
        };
        let process = self.find(exec)?;
        // The end of init is not announced before all that it started has ended.
        let announced = process.has_ended() && (exec.is_some() || !ending);
        if over || announced {
            return Err(Failure::Ended);
        }
        if ending {
            // A lost race: all of it is being killed.
            return Ok(done(()));
        }
        if self.runtime.is_some() {
            return self.kill_by_runtime(exec, signal, all, to);
        }
        let process = self.find(exec)?;
        let pid = process.pid_number().ok_or(Failure::NotFound)?;
        // An exec is killed with what it started: nobody could name the rest afterwards.
        let whole = all || (exec.is_some() && signal == Signal::KILL);
        if !whole {
            return send_signal(pid, signal).map(done);
        }
        let leaf = process.leaf.clone();
        let number = signal.number();
        let killed = match (exec, leaf, &self.cgroup) {
            (None, _, Some(cgroup)) if signal == Signal::KILL => cgroup.kill(),
            (None, _, Some(cgroup)) => cgroup.signal(number).map(drop),
            (Some(_), Some(leaf), _) if signal == Signal::KILL => leaf.kill(),
            (Some(_), Some(leaf), _) => leaf.signal(number).map(drop),
            _ => {
                let sent = self
                    .tree(pid)
                    .into_iter()
                    .map(|pid| send_signal(pid, signal));
                let sent: Result<(), _> = sent
                    .filter(|sent| !matches!(sent, Err(Failure::Ended)))
                    .collect();
                return sent.map(done);
            }
        };
        killed
            .map_err(|error| Failure::from_error("signal the cgroup", &error))
            .map(done)
    }

    pub(super) fn status(&self) -> Status {
        match (&self.phase, &self.processes[0].stage) {
            (Phase::Ended(_) | Phase::Aborted, _) => Status::Stopped,
            _ if self.frozen => Status::Paused,
            (Phase::Alive, _) => process_status(&self.processes[0]),
            // What is not announced yet has not happened.
            (Phase::Ending(_), _) => Status::Running,
        }
    }

    fn observe(&self) -> Observation {
        let exit = match &self.phase {
            Phase::Ended(exit) => Some(exit.clone()),
            _ => None,
        };
        Observation {
            status: self.status(),
            process: self.processes[0].identity(),
            monitor: Some(self.identity.clone()),
            exit,
        }
    }

    fn delete(&mut self, exec: Option<&ExecId>, client: u64) -> Result<Answer, Failure> {
        let Some(_) = exec else {
            let Phase::Ended(exit) = &self.phase else {
                return Err(Failure::status("delete", self.status()));
            };
            let exit = exit.clone();
            if self.deleted_for.is_none() {
                self.setup
                    .isolation
                    .forget(&self.view_request)
                    .map_err(|error| Failure::from_error("remove the filesystem view", &error))?;
                // The record first: with a plan a deletion that was cut short can be repeated.
                let _ = std::fs::remove_file(self.dir.exit_file());
                remove_traces(&self.dir);
                self.deleted_for = Some(client);
            }
            return Ok(Answer::Deleted(Some(exit)));
        };
        let process = self.find(exec)?;
        let Stage::Ended(exit) = &process.stage else {
            let status = process_status(process);
            return Err(Failure::status("delete", status));
        };
        let exit = exit.clone();
        process.deleted = true;
        Ok(Answer::Deleted(Some(exit)))
    }

    pub(super) fn created(&self, index: usize, mut warnings: Vec<String>) -> Answer {
        if self.processes[index].exec.is_none() {
            warnings.extend(self.view.warnings());
        }
        Answer::Created(Created {
            process: self.processes[index].identity(),
            monitor: Some(self.identity.clone()),
            warnings,
        })
    }
}

fn done(_: ()) -> Option<Answer> {
    Some(Answer::Done)
}

fn process_status(process: &Process) -> Status {
    match process.stage {
        Stage::Preparing { .. } => Status::Creating,
        Stage::Gated | Stage::Starting(_) => Status::Created,
        Stage::Running => Status::Running,
        Stage::Ended(_) | Stage::Discarded => Status::Stopped,
    }
}

/// The pid cannot have been reused: it is the monitor's child and has not been reaped, or it is a
/// member of the tree of such a child.
pub(super) fn send_signal(pid: u32, signal: Signal) -> Result<(), Failure> {
    let identity = match procfs::identify(pid) {
        Ok(identity) => identity,
        Err(_) => return Err(Failure::Ended),
    };
    let sent = procfs::open_pidfd(&identity)
        .and_then(|pidfd| crate::sys::pidfd_send_signal(pidfd.as_fd(), signal.number()));
    match sent {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Err(Failure::Ended),
        Err(error) => Err(Failure::setup(format!("send {signal}"), &error)),
    }
}
