//! An executor without processes: it does what a test says, and writes down what it was asked.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use reaper_exec::{
    ContainerState, CreateRequest, CreatedProcess, Engine, Error, ExecRequest, Executor,
    ProcessInfo, Result, Signal, Stats, Target,
};
use reaper_spec::{
    ConsoleSize, ContainerId, ExecId, Exit, ExitStatus, ProcessIdentity, Status, Timestamp,
};
use reaper_state::{MemoryStore, StateRoot, StateStore};

use crate::host::{ContainerEngine, StdioExecutor};

/// One container, at most.
#[derive(Debug, Default)]
pub(super) struct Fake(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    status: Option<Status>,
    exit: Option<Exit>,
    calls: Vec<String>,
}

impl Fake {
    /// Containers whose folders are below `root`.
    pub(super) fn new(root: &Path) -> (Arc<Self>, ContainerEngine) {
        let fake = Arc::new(Self::default());
        let host: Arc<dyn StdioExecutor> = Arc::clone(&fake) as Arc<dyn StdioExecutor>;
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        (fake, Engine::new(host, store, StateRoot::new(root)))
    }

    /// The container's process ends.
    pub(super) fn end(&self, code: u8) {
        let mut seen = self.0.lock().unwrap();
        seen.status = Some(Status::Stopped);
        let status = ExitStatus::Exited { code };
        seen.exit = Some(Exit::new(status, Timestamp::now()));
    }

    /// What was asked, in order.
    pub(super) fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    fn note(&self, call: impl Into<String>) {
        self.0.lock().unwrap().calls.push(call.into());
    }

    fn started(&self) -> Result<()> {
        self.0.lock().unwrap().status = Some(Status::Running);
        Ok(())
    }
}

fn identity(pid: u32) -> ProcessIdentity {
    ProcessIdentity {
        pid,
        start_time: 1,
        boot_id: "boot".to_owned(),
    }
}

fn made(pid: u32) -> CreatedProcess {
    CreatedProcess::new(Some(identity(pid))).with_monitor(Some(identity(pid - 1)))
}

#[async_trait]
impl StdioExecutor for Fake {
    fn defers_streams(&self) -> bool {
        true
    }

    async fn start_with_streams(&self, _id: &ContainerId, streams: [OwnedFd; 3]) -> Result<()> {
        self.note(format!("start with {} streams", streams.len()));
        self.started()
    }
}

#[async_trait]
impl Executor for Fake {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        let mirror = request.container.monitor.propagate_exit;
        self.note(format!(
            "create {:?} mirror={mirror}",
            request.container.process.args
        ));
        self.0.lock().unwrap().status = Some(Status::Created);
        Ok(made(42))
    }

    async fn exec(
        &self,
        _: &ContainerId,
        _: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        self.note(format!(
            "exec {:?} in {:?}",
            request.process.args, request.process.cwd
        ));
        Ok(made(52))
    }

    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        self.note("start");
        match target {
            Target::Init(_) => self.started().map(|()| identity(42)),
            Target::Exec(..) => Err(Error::Execve {
                program: "nope".to_owned(),
                message: "No such file or directory".to_owned(),
                errno: 2,
            }),
        }
    }

    async fn kill(&self, target: &Target, signal: Signal, _all: bool) -> Result<()> {
        if self.0.lock().unwrap().status == Some(Status::Stopped) {
            return Err(Error::Ended(target.clone()));
        }
        self.note(format!("kill {signal}"));
        if signal == Signal::KILL {
            self.end(137);
        }
        Ok(())
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        let exit = self.0.lock().unwrap().exit.clone();
        exit.ok_or_else(|| Error::NotFound(target.clone()))
    }

    async fn resize_pty(&self, _: &Target, _: ConsoleSize) -> Result<()> {
        Ok(())
    }

    async fn close_stdin(&self, _: &Target) -> Result<()> {
        Ok(())
    }

    async fn pause(&self, _: &ContainerId) -> Result<()> {
        self.0.lock().unwrap().status = Some(Status::Paused);
        Ok(())
    }

    async fn resume(&self, _: &ContainerId) -> Result<()> {
        self.started()
    }

    async fn pids(&self, _: &ContainerId) -> Result<Vec<ProcessInfo>> {
        Ok(vec![ProcessInfo::new(42)])
    }

    async fn stats(&self, _: &ContainerId) -> Result<Stats> {
        Ok(Stats::default()
            .with_cpu_user_ns(3)
            .with_cpu_system_ns(4)
            .with_processes(1))
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        let seen = self.0.lock().unwrap();
        let status = seen
            .status
            .ok_or_else(|| Error::NotFound(Target::Init(id.clone())))?;
        Ok(ContainerState::new(status).with_exit(seen.exit.clone()))
    }

    async fn delete(&self, _: &Target) -> Result<Option<Exit>> {
        self.note("delete");
        Ok(None)
    }
}
