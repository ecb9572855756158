//! How the logic of a consumer is tested: over an executor without processes and a store in
//! memory, which fail and wait where the test says so. No root, no monitor, no luck.

use std::sync::Arc;

use reaper_examples::retry::until_success;
use reaper_exec::{
    ContainerConfig, Engine, Error as ExecutorError, Executor as _, FakeCall, FakeExecutor, Signal,
    Target, engine::Error,
};
use reaper_spec::{ContainerId, ExitStatus, ProcessSpec};
use reaper_state::{Call, FakeStore, ScriptedResult, StateRoot, StateStore as _};
use tempfile::TempDir;

struct Rig {
    fake: FakeExecutor,
    store: Arc<FakeStore>,
    engine: Engine<FakeExecutor, FakeStore>,
    id: ContainerId,
    _root: TempDir,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (fake, store) = (FakeExecutor::new(), Arc::new(FakeStore::new()));
        let dir = StateRoot::new(root.path());
        Self {
            engine: Engine::new(fake.clone(), Arc::clone(&store), dir),
            fake,
            store,
            id: ContainerId::new("job").unwrap(),
            _root: root,
        }
    }

    /// The fake knows `exit N` and `missing`; any other program lasts.
    fn container(&self, command: &str) -> ContainerConfig {
        let process = ProcessSpec::new(command.split(' '), "/").unwrap();
        ContainerConfig::new(self.id.clone(), process)
    }

    /// Whether neither the executor nor the store knows of a container.
    fn is_clean(&self) -> bool {
        let known = self.fake.exists(&Target::Init(self.id.clone()));
        !known && self.store.list().unwrap().is_empty()
    }
}

#[tokio::test]
async fn until_success_runs_succeeding_container_once() {
    let rig = Rig::new();
    let exit = until_success(&rig.engine, 3, || rig.container("exit 0")).await;
    assert!(exit.unwrap().status.success());
    assert_eq!(rig.fake.calls(FakeCall::Create), 1);
    assert!(rig.is_clean());
}

#[tokio::test]
async fn until_success_retries_failing_container_up_to_limit() {
    let rig = Rig::new();
    let exit = until_success(&rig.engine, 3, || rig.container("exit 7")).await;
    assert_eq!(exit.unwrap().status, ExitStatus::Exited { code: 7 });
    assert_eq!(rig.fake.calls(FakeCall::Create), 3);
    assert!(rig.is_clean());
}

#[tokio::test]
async fn until_success_does_not_retry_killed_container() {
    let rig = Rig::new();
    let target = Target::Init(rig.id.clone());
    // The first future runs until it waits for the end; then the second ends it.
    let (exit, killed) = tokio::join!(
        until_success(&rig.engine, 3, || rig.container("last")),
        async { rig.fake.kill(&target, Signal::TERM, false).await },
    );
    killed.unwrap();
    assert_eq!(exit.unwrap().status.code(), 143);
    assert_eq!(rig.fake.calls(FakeCall::Create), 1);
}

#[tokio::test]
async fn until_success_reports_execve_error_and_removes_container() {
    let rig = Rig::new();
    let error = until_success(&rig.engine, 3, || rig.container("missing")).await;
    let Err(Error::Executor(ExecutorError::Execve { program, .. })) = error else {
        panic!("{error:?}");
    };
    assert_eq!(program, "missing");
    assert_eq!(rig.fake.calls(FakeCall::Start), 1);
    assert!(rig.is_clean());
}

#[tokio::test]
async fn until_success_stops_when_store_fails() {
    let rig = Rig::new();
    let full = reaper_state::Error::NotFound { id: rig.id.clone() };
    rig.store
        .script(Call::Create, 2, ScriptedResult::Fail(full));
    let error = until_success(&rig.engine, 3, || rig.container("exit 1")).await;
    assert!(matches!(error, Err(Error::Store(_))), "{error:?}");
    assert_eq!(
        rig.fake.calls(FakeCall::Create),
        1,
        "the second attempt was not begun"
    );
}
