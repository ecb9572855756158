//! An executor without processes, that does what the test says and when it says so.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use reaper_exec::{
    CreateRequest, Created, Error, ExecRequest, Executor, Observation, ProcessEntry, Result,
    Signal, Stats, Target,
};
use reaper_spec::{
    ConsoleSize, ContainerId, ExecId, Exit, ExitStatus, ProcessIdentity, Status, Timestamp,
};
use tokio::sync::watch;

/// Clones are handles of one executor.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    held: watch::Sender<HashSet<&'static str>>,
    pids: AtomicU32,
}

#[derive(Default)]
struct State {
    processes: HashMap<Target, Process>,
    failures: HashMap<&'static str, Failure>,
    entered: Vec<&'static str>,
}

struct Process {
    pid: u32,
    status: Status,
    end: watch::Sender<Option<Exit>>,
}

enum Failure {
    Error(Error),
    Panic,
}

impl Fake {
    /// From now on `operation` waits, before it does anything, until it is released.
    pub(crate) fn hold(&self, operation: &'static str) {
        self.0.held.send_modify(|held| {
            held.insert(operation);
        });
    }

    pub(crate) fn release(&self, operation: &'static str) {
        self.0.held.send_modify(|held| {
            held.remove(operation);
        });
    }

    pub(crate) fn fail_next(&self, operation: &'static str, error: Error) {
        self.state()
            .failures
            .insert(operation, Failure::Error(error));
    }

    pub(crate) fn panic_next(&self, operation: &'static str) {
        self.state().failures.insert(operation, Failure::Panic);
    }

    /// A process ends.
    pub(crate) fn exit(&self, target: &Target, code: u8) {
        self.end(target, ExitStatus::Exited { code });
    }

    pub(crate) fn exists(&self, target: &Target) -> bool {
        self.state().processes.contains_key(target)
    }

    /// How often an operation was called.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.state()
            .entered
            .iter()
            .filter(|entered| **entered == operation)
            .count()
    }

    fn end(&self, target: &Target, status: ExitStatus) {
        if let Some(process) = self.state().processes.get_mut(target) {
            process.status = Status::Stopped;
            process.end.send_if_modified(|end| {
                let first = end.is_none();
                if first {
                    *end = Some(Exit {
                        status,
                        at: Timestamp::now(),
                    });
                }
                first
            });
        }
    }

    async fn enter(&self, operation: &'static str) -> Result<()> {
        let failure = {
            let mut state = self.state();
            state.entered.push(operation);
            state.failures.remove(operation)
        };
        let mut held = self.0.held.subscribe();
        held.wait_for(|held| !held.contains(operation))
            .await
            .expect("the executor lives");
        match failure {
            None => Ok(()),
            Some(Failure::Error(error)) => Err(error),
            Some(Failure::Panic) => panic!("scripted in {operation}"),
        }
    }

    fn make(&self, target: Target) -> Created {
        let pid = 1000 + self.0.pids.fetch_add(1, Ordering::Relaxed);
        let process = Process {
            pid,
            status: Status::Created,
            end: watch::Sender::new(None),
        };
        self.state().processes.insert(target, process);
        let process = ProcessIdentity {
            pid,
            start_time: 1,
            boot_id: "test".into(),
        };
        Created {
            process,
            monitor: None,
            warnings: Vec::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic under the lock")
    }
}

#[async_trait]
impl Executor for Fake {
    async fn create(&self, request: CreateRequest) -> Result<Created> {
        self.enter("create").await?;
        Ok(self.make(Target::Init(request.id)))
    }

    async fn exec(&self, id: &ContainerId, exec: &ExecId, _: ExecRequest) -> Result<Created> {
        self.enter("exec").await?;
        Ok(self.make(Target::Exec(id.clone(), exec.clone())))
    }

    async fn start(&self, target: &Target) -> Result<()> {
        if let Err(error) = self.enter("start").await {
            if matches!(error, Error::Execve { .. }) {
                self.end(target, ExitStatus::Exited { code: 127 });
            }
            return Err(error);
        }
        let mut state = self.state();
        let process = state
            .processes
            .get_mut(target)
            .ok_or_else(|| Error::NotFound(target.clone()))?;
        // One that has ended at once was started all the same.
        if process.status == Status::Created {
            process.status = Status::Running;
        }
        Ok(())
    }

    async fn kill(&self, target: &Target, signal: Signal, _all: bool) -> Result<()> {
        self.enter("kill").await?;
        match self
            .state()
            .processes
            .get(target)
            .map(|process| process.status)
        {
            None => return Err(Error::NotFound(target.clone())),
            Some(Status::Stopped) => return Err(Error::Ended(target.clone())),
            Some(_) => {}
        }
        self.end(
            target,
            ExitStatus::Signaled {
                signal: signal.number(),
                core: false,
            },
        );
        Ok(())
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        let mut end = match self.state().processes.get(target) {
            Some(process) => process.end.subscribe(),
            None => return Err(Error::NotFound(target.clone())),
        };
        let exit = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|end| end.clone());
        self.enter(if target.exec_id().is_some() {
            "wait-exec"
        } else {
            "wait"
        })
        .await?;
        exit.ok_or_else(|| Error::NotFound(target.clone()))
    }

    async fn resize(&self, _: &Target, _: ConsoleSize) -> Result<()> {
        self.enter("resize").await
    }

    async fn close_stdin(&self, _: &Target) -> Result<()> {
        self.enter("close_stdin").await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.enter("pause").await?;
        if let Some(process) = self.state().processes.get_mut(&Target::Init(id.clone())) {
            process.status = Status::Paused;
        }
        Ok(())
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.enter("resume").await?;
        if let Some(process) = self.state().processes.get_mut(&Target::Init(id.clone())) {
            process.status = Status::Running;
        }
        Ok(())
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessEntry>> {
        self.enter("pids").await?;
        let state = self.state();
        let own = state
            .processes
            .iter()
            .filter(|(target, _)| target.container() == id);
        Ok(own
            .map(|(target, process)| ProcessEntry {
                pid: process.pid,
                exec: target.exec_id().cloned(),
            })
            .collect())
    }

    async fn stats(&self, _: &ContainerId) -> Result<Stats> {
        self.enter("stats").await?;
        Ok(Stats {
            cpu_user_ns: 3_000,
            cpu_system_ns: 4_000,
            processes: 2,
            ..Stats::default()
        })
    }

    async fn observe(&self, id: &ContainerId) -> Result<Observation> {
        self.enter("observe").await?;
        let target = Target::Init(id.clone());
        match self.state().processes.get(&target) {
            Some(process) => Ok(Observation {
                status: process.status,
                process: None,
                monitor: None,
                exit: process.end.borrow().clone(),
            }),
            None => Err(Error::NotFound(target)),
        }
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        self.enter("delete").await?;
        let removed = self.state().processes.remove(target);
        Ok(removed.and_then(|process| process.end.borrow().clone()))
    }
}
