//! What clients ask.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{errno::Errno, sys::resource};
use reaper_spec::{ExecId, Status};

use super::{
    connection::ReplyTo,
    process::{Process, Stage},
    server::{Monitor, Phase, parse},
};
use crate::{
    ProcessEntry, Signal, Stats,
    channel::{self, Message},
    executor::{Created, Observation},
    procfs,
    protocol::{Answer, Call, Failure, Go},
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
                return self.reply(to, response.answer);
            }
        };
        let to = ReplyTo {
            connection,
            serial: request.envelope.serial,
        };
        let descriptors = std::mem::take(&mut message.descriptors);
        match self.call(request.call, descriptors, to) {
            Ok(None) => {}
            Ok(Some(answer)) => self.reply(to, Ok(answer)),
            Err(failure) => self.reply(to, Err(failure)),
        }
    }

    fn call(&mut self, call: Call, descriptors: Vec<OwnedFd>, to: ReplyTo) -> Now {
        match call {
            Call::Create(_) | Call::Bury { .. } => Err(Failure::AlreadyExists),
            Call::Exec(call) => {
                self.may_exec()?;
                if self.find(Some(&call.exec)).is_ok() {
                    return Err(Failure::AlreadyExists);
                }
                self.make_exec(*call, descriptors, to).map(|()| None)
            }
            Call::Start { exec } => self.start(exec.as_ref(), &descriptors, to),
            Call::Kill { exec, signal, all } => self.kill(exec.as_ref(), signal, all).map(done),
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
                let resized = process.stdio.resize(size);
                resized
                    .map_err(|error| Failure::setup("resize the terminal", &error))
                    .map(done)
            }
            Call::CloseStdin { exec } => {
                self.find(exec.as_ref())?.stdio.close_stdin();
                Ok(done(()))
            }
            Call::Pause => self.pause(to).map(|()| None),
            Call::Resume => self.resume().map(done),
            Call::Pids => Ok(Some(Answer::Pids(self.pids()))),
            Call::Stats => Ok(Some(Answer::Stats(self.stats()))),
            Call::Observe => Ok(Some(Answer::Observed(self.observe()))),
            Call::Delete { exec } => self.delete(exec.as_ref()).map(Some),
        }
    }

    pub(super) fn find(&mut self, exec: Option<&ExecId>) -> Result<&mut Process, Failure> {
        let found = self
            .processes
            .iter_mut()
            .find(|process| process.exec.as_ref() == exec);
        found.ok_or(Failure::NotFound)
    }

    fn may_exec(&self) -> Result<(), Failure> {
        match self.status() {
            Status::Running => Ok(()),
            status => Err(Failure::status("exec in", status)),
        }
    }

    fn start(&mut self, exec: Option<&ExecId>, streams: &[OwnedFd], to: ReplyTo) -> Now {
        if !matches!(self.phase, Phase::Alive) {
            return Err(Failure::status("start", Status::Stopped));
        }
        let process = self.find(exec)?;
        let (Stage::Gated, Some(gate)) = (&process.stage, &process.gate) else {
            let status = process_status(process);
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

    fn kill(&mut self, exec: Option<&ExecId>, signal: Signal, all: bool) -> Result<(), Failure> {
        let over = !matches!(self.phase, Phase::Alive);
        let process = self.find(exec)?;
        if process.has_ended() || over {
            return Err(Failure::Ended);
        }
        let pid = process.pid_number();
        // An exec is killed with what it started: nobody could name the rest afterwards.
        let whole = all || (exec.is_some() && signal == Signal::KILL);
        if !whole {
            return send_signal(pid, signal);
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
                return sent
                    .filter(|sent| !matches!(sent, Err(Failure::Ended)))
                    .collect();
            }
        };
        killed.map_err(|error| super::birth::described("signal the cgroup", &error))
    }

    /// A process and its descendants, as far as they can be found without a cgroup.
    fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(&pid) = tree.get(next) {
            // A process that ended meanwhile has no children any more.
            tree.extend(procfs::children(pid).unwrap_or_default());
            next += 1;
        }
        tree
    }

    fn pids(&self) -> Vec<ProcessEntry> {
        let listed = self.cgroup.as_ref().and_then(|cgroup| cgroup.pids().ok());
        let Some(listed) = listed else {
            let roots = self.processes.iter().filter(|process| !process.has_ended());
            return roots
                .flat_map(|process| {
                    self.tree(process.pid_number())
                        .into_iter()
                        .map(|pid| ProcessEntry {
                            pid,
                            exec: process.exec.clone(),
                        })
                })
                .collect();
        };
        let exec = |leaf: &str| {
            let name = leaf.strip_prefix("exec-")?;
            ExecId::new(name.split_once('~').map_or(name, |(name, _)| name)).ok()
        };
        listed
            .into_iter()
            .map(|(pid, leaf)| ProcessEntry {
                pid,
                exec: exec(&leaf),
            })
            .collect()
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        // What has been waited for, by the monitor or by a process that it waited for, is here.
        if let Ok(usage) = resource::getrusage(resource::UsageWho::RUSAGE_CHILDREN) {
            let nanoseconds = |time: nix::sys::time::TimeVal| {
                u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
                    + u64::try_from(time.tv_usec()).unwrap_or(0) * 1_000
            };
            stats.cpu_user_ns = nanoseconds(usage.user_time());
            stats.cpu_system_ns = nanoseconds(usage.system_time());
        }
        for entry in self.pids() {
            // One that ended since is in the sum above the next time.
            let Ok(usage) = procfs::usage(entry.pid) else {
                continue;
            };
            stats.cpu_user_ns += usage.cpu_user_ns;
            stats.cpu_system_ns += usage.cpu_system_ns;
            stats.memory_bytes += usage.rss_bytes;
            stats.memory_anonymous_bytes += usage.anonymous_bytes;
            stats.threads += usage.threads;
            stats.processes += 1;
        }
        stats
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
            process: Some(self.processes[0].identity.clone()),
            monitor: Some(self.identity.clone()),
            exit,
        }
    }

    fn delete(&mut self, exec: Option<&ExecId>) -> Result<Answer, Failure> {
        let Some(_) = exec else {
            let Phase::Ended(exit) = &self.phase else {
                return Err(Failure::status("delete", self.status()));
            };
            let exit = exit.clone();
            super::birth::remove_traces(&self.dir);
            self.deleted = true;
            return Ok(Answer::Deleted(Some(exit)));
        };
        let index = self
            .processes
            .iter()
            .position(|process| process.exec.as_ref() == exec)
            .ok_or(Failure::NotFound)?;
        match &self.processes[index].stage {
            Stage::Ended(exit) => {
                let exit = exit.clone();
                if self.processes[index].stdio.helpers().is_empty() {
                    self.processes.remove(index);
                } else {
                    self.processes[index].owner = u64::MAX;
                }
                Ok(Answer::Deleted(Some(exit)))
            }
            _ => Err(Failure::status(
                "delete",
                process_status(&self.processes[index]),
            )),
        }
    }

    pub(super) fn created(&self, index: usize, warnings: Vec<String>) -> Answer {
        Answer::Created(Created {
            process: self.processes[index].identity.clone(),
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
        Stage::Preparing(_) => Status::Creating,
        Stage::Gated | Stage::Starting(_) => Status::Created,
        Stage::Running => Status::Running,
        Stage::Ended(_) => Status::Stopped,
    }
}

/// The pid cannot have been reused: it is the monitor's child and has not been reaped, or it is a
/// member of the tree of such a child.
fn send_signal(pid: u32, signal: Signal) -> Result<(), Failure> {
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
