//! Programs that embed the engine and never become a monitor: this one, for example.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use reaper_exec::{
    ContainerConfig, CreateRequest, Engine, Error, Executor, HostExecutor, OciExecutor, Signal,
    Target, engine,
};
use reaper_overlay::ViewRequest;
use reaper_spec::{ContainerId, ProcessSpec};
use reaper_state::{MemoryStore, StateRoot};

fn id() -> ContainerId {
    ContainerId::new("web").unwrap()
}

fn container(terminal: bool) -> ContainerConfig {
    let mut process = ProcessSpec::new(["true"], "/").unwrap();
    process.terminal = terminal;
    ContainerConfig::new(id(), process)
}

async fn create(executor: &dyn Executor, root: &StateRoot, container: ContainerConfig) -> Error {
    let dir = root.container(&container.id);
    std::fs::create_dir_all(dir.path()).unwrap();
    let created = executor.create(CreateRequest::new(dir, container)).await;
    created.expect_err("an error")
}

/// The error that comes within a second says what the program has to call.
async fn is_told<E: std::error::Error>(way: &str, told: impl Future<Output = E>) {
    let told = tokio::time::timeout(Duration::from_secs(1), told).await;
    let told = told.unwrap_or_else(|_| panic!("{way}: not told within a second"));
    let mut text = told.to_string();
    let mut source = told.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(
        text.contains("cannot be started") && text.contains("run_if_monitor"),
        "{way}: {text}"
    );
}

#[tokio::test]
async fn a_program_that_forgot_to_become_its_monitor_is_told_and_not_run_again() {
    for terminal in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::new(folder.path());
        let executor = HostExecutor::new(root.clone());
        let failed = create(&executor, &root, container(terminal));
        is_told("create a container", failed).await;
        let executor = OciExecutor::new(executor, "/bin/true");
        let failed = create(&executor, &root, container(terminal));
        is_told("create a real container", failed).await;
    }
}

#[tokio::test]
async fn it_is_told_by_an_engine_which_keeps_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let root = StateRoot::new(folder.path());
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::new(HostExecutor::new(root.clone()), store, root);
    let failed = async {
        let created = engine.create(container(false)).await;
        created.expect_err("an error")
    };
    is_told::<engine::Error>("create by an engine", failed).await;
    assert_eq!(engine.list().await.unwrap(), []);
}

/// A container as another program has left it: its monitor was killed.
fn leave_without_monitor(root: &Path) {
    let folder = root.join(id().as_str());
    std::fs::create_dir_all(&folder).unwrap();
    let plan = serde_json::json!({
        "version": 1,
        "monitor": {"pid": 1, "start_time": u64::MAX, "boot_id": "none"},
        "view": ViewRequest::new(id(), "/".into()),
        "cgroup": null,
    });
    std::fs::write(folder.join("plan.json"), plan.to_string()).unwrap();
}

#[tokio::test]
async fn it_is_told_wherever_a_killed_monitor_is_to_be_cleaned_up_after() {
    let folder = tempfile::tempdir().unwrap();
    let root = StateRoot::new(folder.path());
    leave_without_monitor(folder.path());
    let executor = HostExecutor::new(root.clone());
    let target = Target::Init(id());
    is_told("state", async {
        executor.state(&id()).await.expect_err("an error")
    })
    .await;
    is_told("wait", async {
        executor.wait(&target).await.expect_err("an error")
    })
    .await;
    is_told("kill", async {
        let killed = executor.kill(&target, Signal::KILL, true).await;
        killed.expect_err("an error")
    })
    .await;
    is_told("delete", async {
        executor.delete(&target).await.expect_err("an error")
    })
    .await;
    is_told("remove the view", async {
        let view = ViewRequest::new(id(), "/".into());
        let removed = executor.remove_view(&view).await;
        removed.expect_err("an error")
    })
    .await;
    // One of its id is created once what is left of it was cleaned up.
    is_told("create", create(&executor, &root, container(false))).await;
}

#[tokio::test]
async fn a_monitor_program_that_is_none_is_named_as_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let root = StateRoot::new(folder.path());
    let executor = HostExecutor::new(root.clone()).monitor_program("/bin/true");
    let text = create(&executor, &root, container(false)).await.to_string();
    assert!(
        text.contains("run_if_monitor") && text.contains("monitor_program"),
        "{text}"
    );
}
