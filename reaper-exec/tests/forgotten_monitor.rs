//! Programs that embed the engine and never become a monitor: this one, for example.

use reaper_exec::{ContainerConfig, CreateRequest, Error, Executor as _, HostExecutor};
use reaper_spec::{ContainerId, ProcessSpec};
use reaper_state::StateRoot;

async fn create(executor: HostExecutor, root: &StateRoot) -> Error {
    let id = ContainerId::new("web").unwrap();
    let dir = root.container(&id);
    std::fs::create_dir_all(dir.path()).unwrap();
    let process = ProcessSpec::new(["true"], "/").unwrap();
    let container = ContainerConfig::new(id, process);
    let created = executor.create(CreateRequest::new(dir, container)).await;
    created.expect_err("an error")
}

#[tokio::test]
async fn a_program_that_forgot_to_become_its_monitor_is_told_and_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = StateRoot::new(folder.path());
    let error = create(HostExecutor::new(root.clone()), &root).await;
    let text = error.to_string();
    assert!(
        text.contains("cannot be started") && text.contains("run_if_monitor"),
        "{text}"
    );
}

#[tokio::test]
async fn a_monitor_program_that_is_none_is_named_as_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let root = StateRoot::new(folder.path());
    let executor = HostExecutor::new(root.clone()).monitor_program("/bin/true");
    let text = create(executor, &root).await.to_string();
    assert!(
        text.contains("run_if_monitor") && text.contains("monitor_program"),
        "{text}"
    );
}
