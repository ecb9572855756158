//! The processes that a fake executor pretends to have.

use std::collections::HashMap;

use reaper_spec::{ContainerId, Exit, ExitStatus, ProcessIdentity, ProcessSpec, Status, Timestamp};
use tokio::sync::watch;

use super::{Call, Failure};
use crate::{
    executor::{CreatedProcess, Error, Result, Target},
    signal::Signal,
};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) processes: HashMap<Target, Process>,
    pub(super) failures: HashMap<Call, Failure>,
    pub(super) entered: Vec<Call>,
    pub(super) last_pid: u32,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) identity: ProcessIdentity,
    pub(super) program: Vec<String>,
    pub(super) status: Status,
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

    /// Delivers a signal; with `all` to the execs of a container too.
    pub(super) fn signal(&mut self, target: &Target, signal: Signal, all: bool) {
        let (number, core) = (signal.number(), false);
        let signaled = ExitStatus::Signaled {
            signal: number,
            core,
        };
        let mut reached = vec![target.clone()];
        if let (Target::Init(id), true) = (target, all) {
            reached.extend(self.execs(id));
        }
        reached.retain(|target| number != 0 && !self.ignores(target, number));
        // Execs first: the end of init would kill them.
        for target in reached.iter().rev() {
            self.end(target, signaled.clone());
        }
    }

    fn ignores(&self, target: &Target, signal: i32) -> bool {
        let program = self
            .processes
            .get(target)
            .map(|process| &process.program[..]);
        let is_ignored = |number: &str| number.parse() == Ok(signal);
        matches!(program, Some([name, number]) if name == "ignore" && is_ignored(number))
    }

    fn execs(&self, id: &ContainerId) -> Vec<Target> {
        let of = |known: &Target| known.exec_id().is_some() && known.container() == id;
        let targets = self.processes.keys();
        targets.filter(|known| of(known)).cloned().collect()
    }

    pub(super) fn end(&mut self, target: &Target, status: ExitStatus) {
        if let Target::Init(id) = target {
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
