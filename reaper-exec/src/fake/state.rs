//! The processes that a fake executor pretends to have.

use std::collections::HashMap;

use reaper_spec::{
    ContainerId, Exit, ExitStatus, ProcessIdentity, ProcessSpec, Resources, Status, Timestamp,
};
use tokio::sync::watch;

use super::{Call, Failure};
use crate::{
    cgroup::{CgroupStats, PidsStats},
    executor::{CreatedProcess, Error, ProcessInfo, Result, Stats, Target},
    signal::Signal,
};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) processes: HashMap<Target, Process>,
    pub(super) failures: HashMap<Call, Failure>,
    pub(super) entered: Vec<Call>,
    /// The signals that paused containers get when they are resumed.
    pub(super) pending: Vec<(Target, Signal, bool)>,
    pub(super) last_pid: u32,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) identity: ProcessIdentity,
    pub(super) program: Vec<String>,
    pub(super) status: Status,
    /// How many processes its container may have.
    pub(super) pids_limit: Option<i64>,
    pub(super) end: watch::Sender<Option<Exit>>,
}

impl State {
    pub(super) fn make(&mut self, target: Target, process: ProcessSpec) -> Result<CreatedProcess> {
        if self.processes.contains_key(&target) {
            return Err(Error::AlreadyExists(target));
        }
        self.last_pid += 1;
        let identity = ProcessIdentity {
            pid: self.last_pid,
            start_time: 1,
            boot_id: "fake".to_owned(),
        };
        let made = Process {
            identity: identity.clone(),
            program: process.args,
            status: Status::Created,
            pids_limit: None,
            end: watch::Sender::new(None),
        };
        self.processes.insert(target, made);
        Ok(CreatedProcess {
            refused: Vec::new(),
            process: Some(identity),
            monitor: None,
            warnings: Vec::new(),
        })
    }

    pub(super) fn find(&mut self, target: &Target) -> Result<&mut Process> {
        let found = self.processes.get_mut(target);
        found.ok_or_else(|| Error::NotFound(target.clone()))
    }

    /// A process, if it has a status in which the operation is possible.
    pub(super) fn find_in(
        &mut self,
        target: &Target,
        wanted: Status,
        operation: &str,
    ) -> Result<&mut Process> {
        let process = self.find(target)?;
        if process.status == wanted {
            return Ok(process);
        }
        Err(Error::Status {
            operation: operation.to_owned(),
            target: target.clone(),
            status: process.status,
        })
    }

    pub(super) fn start(&mut self, target: &Target) -> Result<ProcessIdentity> {
        let process = self.find_in(target, Status::Created, "start")?;
        let code = match &process.program[..] {
            [name, code] if name == "exit" => code.parse().ok(),
            [name] if name == "missing" => {
                return Err(Error::Execve {
                    program: "missing".to_owned(),
                    message: "No such file or directory".to_owned(),
                    errno: libc::ENOENT,
                });
            }
            _ => None,
        };
        process.status = Status::Running;
        let identity = process.identity.clone();
        if let Some(code) = code {
            self.end(target, ExitStatus::Exited { code });
        }
        Ok(identity)
    }

    pub(super) fn delete(&mut self, target: &Target) -> Result<Option<Exit>> {
        if !self.processes.contains_key(target) {
            return Ok(None);
        }
        let process = self.find_in(target, Status::Stopped, "delete")?;
        let exit = process.end.borrow().clone();
        match target {
            Target::Init(id) => self.processes.retain(|known, _| known.container() != id),
            Target::Exec(..) => drop(self.processes.remove(target)),
        }
        Ok(exit)
    }

    pub(super) fn resume(&mut self, target: &Target) -> Result<()> {
        self.find_in(target, Status::Paused, "resume")?.status = Status::Running;
        let is_own = |(to, ..): &(Target, Signal, bool)| to.container() == target.container();
        let (own, others) = self.pending.drain(..).partition(is_own);
        self.pending = others;
        for (to, signal, all) in own {
            self.signal(&to, signal, all);
        }
        Ok(())
    }

    /// Sets the limit of processes, the only one that a fake keeps.
    pub(super) fn update(&mut self, target: &Target, resources: &Resources) -> Result<()> {
        let process = self.find(target)?;
        if process.status == Status::Stopped {
            return Err(Error::Status {
                operation: "update".to_owned(),
                target: target.clone(),
                status: Status::Stopped,
            });
        }
        if let Some(cpus) = &resources.cpu.cpus {
            return Err(Error::Setup {
                step: format!("set the CPUs {cpus}"),
                message: "a fake has none".to_owned(),
                errno: None,
            });
        }
        process.pids_limit = resources.pids.limit.or(process.pids_limit);
        Ok(())
    }

    pub(super) fn pids(&mut self, target: &Target) -> Result<Vec<ProcessInfo>> {
        self.find(target)?;
        let living = self.processes.iter().filter(|(known, process)| {
            known.container() == target.container() && process.status != Status::Stopped
        });
        let entries = living.map(|(known, process)| ProcessInfo {
            pid: process.identity.pid,
            exec: known.exec_id().cloned(),
        });
        Ok(entries.collect())
    }

    /// The figures that a fake has: how many processes there are and may be.
    pub(super) fn stats(&mut self, target: &Target) -> Result<Stats> {
        let processes = self.pids(target)?.len() as u64;
        let limit = self.find(target)?.pids_limit;
        let limited = |limit: i64| {
            Box::new(CgroupStats {
                pids: Some(PidsStats {
                    current: processes,
                    limit: limit.try_into().ok(),
                }),
                ..CgroupStats::default()
            })
        };
        Ok(Stats {
            processes,
            cgroups: limit.map(limited),
            ..Stats::default()
        })
    }

    fn is_paused(&self, id: &ContainerId) -> bool {
        let init = self.processes.get(&Target::Init(id.clone()));
        init.is_some_and(|init| init.status == Status::Paused)
    }

    /// Delivers a signal; with `all` to the execs of a container too.
    pub(super) fn signal(&mut self, target: &Target, signal: Signal, all: bool) {
        if signal != Signal::KILL && self.is_paused(target.container()) {
            self.pending.push((target.clone(), signal, all));
            return;
        }
        let number = signal.number();
        let mut reached = vec![target.clone()];
        if let (Target::Init(id), true) = (target, all) {
            reached.extend(self.execs(id));
        }
        reached.retain(|target| number != 0 && !self.ignores(target, number));
        // Execs first: the end of init would kill them.
        for target in reached.iter().rev() {
            let status = self.end_by(target, number);
            self.end(target, status);
        }
    }

    /// How a process ends that gets a signal.
    fn end_by(&self, target: &Target, signal: i32) -> ExitStatus {
        let handled = match self.program(target) {
            [name, number, code] if name == "handle" && number.parse() == Ok(signal) => {
                code.parse().ok()
            }
            _ => None,
        };
        let signaled = ExitStatus::Signaled {
            signal,
            core: false,
        };
        handled.map_or(signaled, |code| ExitStatus::Exited { code })
    }

    fn program(&self, target: &Target) -> &[String] {
        let process = self.processes.get(target);
        process.map_or(&[], |process| &process.program)
    }

    fn ignores(&self, target: &Target, signal: i32) -> bool {
        let is_ignored = |number: &str| number.parse() == Ok(signal);
        matches!(self.program(target), [name, number] if name == "ignore" && is_ignored(number))
    }

    fn execs(&self, id: &ContainerId) -> Vec<Target> {
        let of = |known: &Target| known.exec_id().is_some() && known.container() == id;
        let targets = self.processes.keys();
        targets.filter(|known| of(known)).cloned().collect()
    }

    pub(super) fn end(&mut self, target: &Target, status: ExitStatus) {
        if let Target::Init(id) = target {
            self.pending.retain(|(to, ..)| to.container() != id);
            for exec in self.execs(id) {
                let killed = ExitStatus::Signaled {
                    signal: Signal::KILL.number(),
                    core: false,
                };
                self.end(&exec, killed);
            }
        }
        let Some(process) = self.processes.get_mut(target) else {
            return;
        };
        if process.status != Status::Stopped {
            process.status = Status::Stopped;
            let at = Timestamp::now();
            process.end.send_replace(Some(Exit::new(status, at)));
        }
    }
}
