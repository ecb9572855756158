//! The action `delete`: what is left when a shim was killed.

use std::{fs, process::Output, sync::Arc};

use containerd_shim_protos::{api::DeleteResponse, protobuf::Message};
use nix::sys::signal::Signal;
use reaper_exec::{Engine, HostExecutor};
use reaper_spec::{ContainerId, Status};
use reaper_state::{FileStore, StateRoot};

use crate::harness::Node;

fn response(output: Output) -> DeleteResponse {
    assert!(output.status.success(), "{output:?}");
    DeleteResponse::parse_from_bytes(&output.stdout).unwrap()
}

#[tokio::test]
async fn delete_removes_remains_of_killed_shim_and_is_repeatable() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    shim.signal(Signal::SIGKILL);
    shim.ended();
    let folder = node.root().join("ns/test/pod");
    assert!(folder.exists());

    let bundle = node.path().join("bundles/pod");
    let args = ["-bundle", bundle.to_str().unwrap(), "delete"];
    let first = response(
        node.command("pod", &args)
            .current_dir("/")
            .output()
            .unwrap(),
    );
    assert_eq!((first.exit_status, first.pid), (137, shim.pid));
    assert!(first.exited_at.seconds > 0);
    assert!(!folder.exists());
    assert!(!shim.socket().exists());

    let second = response(
        node.command("pod", &args)
            .current_dir("/")
            .output()
            .unwrap(),
    );
    assert_eq!(second.exit_status, 137);
}

#[tokio::test]
async fn a_shim_that_serves_the_rest_of_the_pod_is_left_alone() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    node.bundle("app", "pod");
    assert_eq!(node.start("app"), shim.address);
    response(node.command("app", &["delete"]).output().unwrap());
    assert!(shim.socket().exists());
    assert!(fs::metadata(node.root().join("ns/test/pod")).is_ok());
    shim.remove("pod").await;
}

#[test]
fn delete_of_never_created_container_succeeds() {
    let node = Node::new();
    node.bundle("pod", "pod");
    let answer = response(node.command("pod", &["delete"]).output().unwrap());
    assert_eq!((answer.exit_status, answer.pid), (137, 0));
}

#[test]
fn delete_refuses_invalid_id() {
    let node = Node::new();
    node.bundle("pod", "pod");
    let mut command = node.command("pod", &["-id", "../pod", "delete"]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("../pod"));
}

#[tokio::test]
async fn other_clients_see_sandbox_running_while_its_shim_lives() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    let root = StateRoot::new(node.root()).containerd_namespace("test");
    let store = Arc::new(FileStore::new(root.clone()));
    let others = Engine::new(HostExecutor::new(root.clone()), store, root);
    let id = ContainerId::new("pod").unwrap();
    let seen = others.state(&id).await.unwrap();
    assert_eq!(seen.status, Status::Running);
    assert_eq!(seen.process.unwrap().pid, shim.pid);
    shim.signal(Signal::SIGKILL);
    shim.ended();
    assert_eq!(
        others.state(&id).await.unwrap().exit.unwrap().status.code(),
        137
    );
}
