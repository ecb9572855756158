//! An executor without processes, that does what a test's script says.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use reaper_spec::{
    ConsoleSize, ContainerId, ExecId, Exit, ExitStatus, ProcessIdentity, ProcessSpec, Status,
    Timestamp,
};
use tokio::sync::watch;

use crate::{
    CreateRequest, Created, Error, ExecRequest, Executor, Observation, ProcessEntry, Result,
    Signal, Stats, Target,
};

/// A call of an [`Executor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    Create,
    Exec,
    Start,
    Kill,
    Wait,
    Resize,
    CloseStdin,
    Pause,
    Resume,
    Pids,
    Stats,
    Observe,
    Delete,
}

/// An executor without processes, for tests of races and failures. It keeps the contract of
/// [`Executor`], and passes its conformance suite.
///
/// A process lasts until [`exit`](Self::exit) or a signal, any but 0, ends it. Three programs are
/// known: `exit N` ends at once with that code, `missing` cannot be executed, and any other lasts.
/// Every call can be [held](Self::hold) before it does anything, or [fail](Self::fail_next).
///
/// Clones are handles of one executor.
///
/// ```
/// use reaper_exec::{Executor as _, FakeCall, FakeExecutor, Signal, Target};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fake = FakeExecutor::new();
/// let target = Target::Init("web-1".parse()?);
/// let missing = fake.kill(&target, Signal::TERM, false).await.unwrap_err();
/// assert_eq!(missing.to_string(), "container web-1 does not exist");
/// assert_eq!(fake.calls(FakeCall::Kill), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeExecutor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    held: watch::Sender<HashSet<Call>>,
}

#[derive(Debug, Default)]
struct State {
    processes: HashMap<Target, Process>,
    failures: HashMap<Call, Error>,
    entered: Vec<Call>,
    last_pid: u32,
}

#[derive(Debug)]
struct Process {
    identity: ProcessIdentity,
    program: Vec<String>,
    status: Status,
    end: watch::Sender<Option<Exit>>,
}

impl FakeExecutor {
    /// One that has no containers.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on calls of this kind wait, before they do anything, until they are released.
    pub fn hold(&self, call: Call) {
        self.0.held.send_modify(|held| _ = held.insert(call));
    }

    /// Lets go of the calls that wait, and of those to come.
    pub fn release(&self, call: Call) {
        self.0.held.send_modify(|held| _ = held.remove(&call));
    }

    /// The next call of this kind fails, and does nothing else. A start that fails with
    /// [`Error::Execve`] ends its process, as the contract has it.
    pub fn fail_next(&self, call: Call, error: Error) {
        self.state().failures.insert(call, error);
    }

    /// A process ends by itself, and with init all of its container.
    pub fn exit(&self, target: &Target, code: u8) {
        self.state().end(target, ExitStatus::Exited { code });
    }

    /// Whether the process is known: made, and not deleted.
    pub fn exists(&self, target: &Target) -> bool {
        self.state().processes.contains_key(target)
    }

    /// How often this was called.
    pub fn calls(&self, call: Call) -> usize {
        let state = self.state();
        state
            .entered
            .iter()
            .filter(|&&entered| entered == call)
            .count()
    }

    async fn enter(&self, call: Call) -> Result<()> {
        let failure = {
            let mut state = self.state();
            state.entered.push(call);
            state.failures.remove(&call)
        };
        let mut held = self.0.held.subscribe();
        // An error would be the end of the sender, which `self` owns.
        let _ = held.wait_for(|held| !held.contains(&call)).await;
        failure.map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make(&mut self, target: Target, process: ProcessSpec) -> Result<Created> {
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
        Ok(Created {
            process: identity,
            monitor: None,
            warnings: Vec::new(),
        })
    }

    fn find(&mut self, target: &Target) -> Result<&mut Process> {
        let found = self.processes.get_mut(target);
        found.ok_or_else(|| Error::NotFound(target.clone()))
    }

    /// A process, if it has a status in which the operation is possible.
    fn find_in(
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

    fn end(&mut self, target: &Target, status: ExitStatus) {
        if let Target::Init(id) = target {
            let of = |known: &Target| known.exec_id().is_some() && known.container() == id;
            let execs: Vec<Target> = self
                .processes
                .keys()
                .filter(|known| of(known))
                .cloned()
                .collect();
            for exec in execs {
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
            process.end.send_replace(Some(Exit { status, at }));
        }
    }
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn create(&self, request: CreateRequest) -> Result<Created> {
        self.enter(Call::Create).await?;
        self.state().make(Target::Init(request.id), request.process)
    }

    async fn exec(&self, id: &ContainerId, exec: &ExecId, request: ExecRequest) -> Result<Created> {
        self.enter(Call::Exec).await?;
        let mut state = self.state();
        state.find_in(&Target::Init(id.clone()), Status::Running, "exec in")?;
        state.make(Target::Exec(id.clone(), exec.clone()), request.process)
    }

    async fn start(&self, target: &Target) -> Result<()> {
        if let Err(error) = self.enter(Call::Start).await {
            if matches!(error, Error::Execve { .. }) {
                self.exit(target, 127);
            }
            return Err(error);
        }
        let mut state = self.state();
        let process = state.find_in(target, Status::Created, "start")?;
        process.status = Status::Running;
        let code = match &process.program[..] {
            [name, code] if name == "exit" => code.parse().ok(),
            [name] if name == "missing" => {
                state.end(target, ExitStatus::Exited { code: 127 });
                return Err(Error::Execve {
                    program: "missing".to_owned(),
                    message: "No such file or directory".to_owned(),
                    errno: libc::ENOENT,
                });
            }
            _ => None,
        };
        if let Some(code) = code {
            state.end(target, ExitStatus::Exited { code });
        }
        Ok(())
    }

    async fn kill(&self, target: &Target, signal: Signal, _all: bool) -> Result<()> {
        self.enter(Call::Kill).await?;
        let mut state = self.state();
        if state.find(target)?.status == Status::Stopped {
            return Err(Error::Ended(target.clone()));
        }
        let number = signal.number();
        if number != 0 {
            let core = false;
            state.end(
                target,
                ExitStatus::Signaled {
                    signal: number,
                    core,
                },
            );
        }
        Ok(())
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        let mut end = self.state().find(target)?.end.subscribe();
        let exit = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|end| end.clone());
        self.enter(Call::Wait).await?;
        exit.ok_or_else(|| Error::NotFound(target.clone()))
    }

    async fn resize(&self, target: &Target, _size: ConsoleSize) -> Result<()> {
        self.enter(Call::Resize).await?;
        self.state().find(target).map(drop)
    }

    async fn close_stdin(&self, target: &Target) -> Result<()> {
        self.enter(Call::CloseStdin).await?;
        self.state().find(target).map(drop)
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.enter(Call::Pause).await?;
        let target = Target::Init(id.clone());
        self.state()
            .find_in(&target, Status::Running, "pause")?
            .status = Status::Paused;
        Ok(())
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.enter(Call::Resume).await?;
        let target = Target::Init(id.clone());
        self.state()
            .find_in(&target, Status::Paused, "resume")?
            .status = Status::Running;
        Ok(())
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessEntry>> {
        self.enter(Call::Pids).await?;
        let mut state = self.state();
        state.find(&Target::Init(id.clone()))?;
        let living = state.processes.iter().filter(|(target, process)| {
            target.container() == id && process.status != Status::Stopped
        });
        let entries = living.map(|(target, process)| ProcessEntry {
            pid: process.identity.pid,
            exec: target.exec_id().cloned(),
        });
        Ok(entries.collect())
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        self.enter(Call::Stats).await?;
        self.state().find(&Target::Init(id.clone()))?;
        Ok(Stats::default())
    }

    async fn observe(&self, id: &ContainerId) -> Result<Observation> {
        self.enter(Call::Observe).await?;
        let mut state = self.state();
        let process = state.find(&Target::Init(id.clone()))?;
        Ok(Observation {
            status: process.status,
            process: Some(process.identity.clone()),
            monitor: None,
            exit: process.end.borrow().clone(),
        })
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        self.enter(Call::Delete).await?;
        let mut state = self.state();
        if !state.processes.contains_key(target) {
            return Ok(None);
        }
        let exit = state
            .find_in(target, Status::Stopped, "delete")?
            .end
            .borrow()
            .clone();
        match target {
            Target::Init(id) => state.processes.retain(|known, _| known.container() != id),
            Target::Exec(..) => drop(state.processes.remove(target)),
        }
        Ok(exit)
    }
}
