//! An executor that breaks what the contract says of streams, which takes processes: the suite finds
//! it. Those that need none are in `tests/mutants.rs`.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use nix::fcntl::OFlag;
use reaper_exec::{
    ContainerState, CreateRequest, CreatedProcess, ExecRequest, Executor, HostExecutor,
    ProcessInfo, Result, Signal, Stats, Target,
    conformance::{RULES, Subject},
    io::StreamTarget,
};
use reaper_spec::{ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity};
use reaper_state::StateRoot;
use tokio::task::{LocalSet, spawn_local};

use crate::rig::{Rig, cases};

cases! {
    executor_that_leaves_a_terminal_open_is_found,
}

async fn executor_that_leaves_a_terminal_open_is_found(_rig: &Rig) {
    let root = tempfile::tempdir().unwrap();
    let inner = Arc::new(HostExecutor::new(StateRoot::new(root.path())));
    let mutant = LeavesTerminalOpen {
        inner: Arc::clone(&inner),
        kept: Mutex::default(),
    };
    let subject = Subject::new(mutant, root.path());
    let name = "deleted_exec_leaves_no_stream_open";
    let rule = RULES.iter().find(|rule| rule.name == name).expect("a rule");
    let checking = async { spawn_local(async move { rule.check(&subject).await }).await };
    let checked = LocalSet::new().run_until(checking).await;
    let cause = checked.expect_err("the rule is broken").into_panic();
    let said = cause.downcast::<String>().expect("a message");
    let expected = format!("the rule {name} is broken: the output is left open");
    assert!(said.starts_with(&expected), "{said}");
    // A check that fails leaves its container.
    let target = Target::Init("conformance".parse().unwrap());
    inner.kill(&target, Signal::KILL, true).await.unwrap();
    inner.wait(&target).await.unwrap();
    inner.delete(&target).await.unwrap();
}

/// Goes on holding the output of an exec's terminal.
struct LeavesTerminalOpen {
    inner: Arc<HostExecutor>,
    kept: Mutex<Vec<File>>,
}

#[async_trait]
impl Executor for LeavesTerminalOpen {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        self.inner.create(request).await
    }
    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        if let StreamTarget::Uri(fifo) = &request.stdio.streams.stdout {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
            let writer = options.open(fifo).expect("open a FIFO that is read from");
            self.kept.lock().unwrap().push(writer);
        }
        self.inner.exec(id, exec, request).await
    }
    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        self.inner.start(target).await
    }
    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        self.inner.kill(target, signal, all).await
    }
    async fn wait(&self, target: &Target) -> Result<Exit> {
        self.inner.wait(target).await
    }
    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        self.inner.resize_pty(target, size).await
    }
    async fn close_stdin(&self, target: &Target) -> Result<()> {
        self.inner.close_stdin(target).await
    }
    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.inner.pause(id).await
    }
    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.inner.resume(id).await
    }
    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        self.inner.pids(id).await
    }
    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        self.inner.stats(id).await
    }
    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        self.inner.state(id).await
    }
    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        self.inner.delete(target).await
    }
}
