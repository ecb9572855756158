//! The pid namespaces of a pod's containers, as the CRI names them.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use containerd_shim_protos::{api::*, ttrpc::context};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Node, Shim};

fn private() -> Node {
    Node::new().env("REAPER_PID", "private")
}

/// Writes a bundle as the CRI does, whose namespaces are these.
fn bundle(node: &Node, id: &str, namespaces: &Value) -> PathBuf {
    let bundle = node.bundle(id, "pod");
    let config = bundle.join("config.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    if id != "pod" {
        document["process"]["args"] = json!(["/bin/sleep", "1000"]);
    }
    document["linux"]["namespaces"] = namespaces.clone();
    fs::write(config, document.to_string()).unwrap();
    bundle
}

/// A shim with the pod's sandbox, which runs.
async fn pod(node: &Node, namespaces: &Value) -> Shim {
    let sandbox = bundle(node, "pod", namespaces);
    let shim = Shim::connect(&node.start("pod")).await;
    shim.create("pod", &sandbox).await.unwrap();
    shim
}

async fn pid(shim: &Shim, id: &str) -> u32 {
    let request = StateRequest {
        id: id.into(),
        ..Default::default()
    };
    let state = shim.task.state(context::with_timeout(0), &request).await;
    state.unwrap().pid
}

/// Makes and starts a container with this pid namespace, and returns what it is in.
async fn namespace_of(shim: &Shim, node: &Node, id: &str, pids: Value) -> u64 {
    let mut namespaces = vec![json!({ "type": "mount" })];
    namespaces.extend(Some(pids).filter(|pids| !pids.is_null()));
    let bundle = bundle(node, id, &json!(namespaces));
    shim.create(id, &bundle).await.unwrap();
    namespace(pid(shim, id).await)
}

fn namespace(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/pid")).unwrap().ino()
}

fn of(pid: u32) -> Value {
    json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") })
}

async fn exit_of(shim: &Shim, id: &str) -> u32 {
    let request = WaitRequest {
        id: id.into(),
        ..Default::default()
    };
    let exit = shim.task.wait(context::with_timeout(0), &request).await;
    exit.unwrap().exit_status
}

fn own() -> u64 {
    namespace(std::process::id())
}

#[tokio::test]
async fn containers_have_the_pid_namespace_that_their_pod_asks_for() {
    let node = private();
    let shim = pod(&node, &json!([{ "type": "pid" }])).await;
    let sandbox = pid(&shim, "pod").await;
    assert_ne!(sandbox, shim.pid, "it has a process");
    let shared = namespace(sandbox);
    assert_ne!(shared, own());
    // As without shareProcessNamespace, and with it.
    let alone = namespace_of(&shim, &node, "alone", json!({ "type": "pid" })).await;
    assert!(![shared, own()].contains(&alone));
    for id in ["one", "two"] {
        assert_eq!(namespace_of(&shim, &node, id, of(sandbox)).await, shared);
    }
    // An ephemeral container with a target.
    let target = of(pid(&shim, "alone").await);
    assert_eq!(namespace_of(&shim, &node, "debug", target).await, alone);
    // A container that has ended is made again in the pod's.
    shim.remove("two").await;
    assert_eq!(namespace_of(&shim, &node, "two", of(sandbox)).await, shared);
    for id in ["debug", "two", "one", "alone", "pod"] {
        shim.remove(id).await;
    }
}

#[tokio::test]
async fn a_pod_of_the_hosts_pids_has_them_whatever_the_admin_says() {
    let node = private();
    let shim = pod(&node, &json!([{ "type": "ipc" }])).await;
    // There is nothing to keep.
    assert_eq!(pid(&shim, "pod").await, shim.pid);
    assert_eq!(namespace_of(&shim, &node, "one", of(shim.pid)).await, own());
    assert_eq!(namespace_of(&shim, &node, "two", Value::Null).await, own());
    for id in ["one", "two", "pod"] {
        shim.remove(id).await;
    }
    // By default all are the host's.
    let node = Node::new();
    let shim = pod(&node, &json!([{ "type": "pid" }])).await;
    assert_eq!(pid(&shim, "pod").await, shim.pid);
    assert_eq!(namespace_of(&shim, &node, "one", of(shim.pid)).await, own());
    let alone = json!({ "type": "pid" });
    assert_eq!(namespace_of(&shim, &node, "two", alone).await, own());
    for id in ["one", "two", "pod"] {
        shim.remove(id).await;
    }
}

#[tokio::test]
async fn the_end_of_a_pods_pid_namespace_is_that_of_its_sandbox() {
    let node = private();
    let shim = pod(&node, &json!([{ "type": "pid" }])).await;
    let sandbox = pid(&shim, "pod").await;
    namespace_of(&shim, &node, "one", of(sandbox)).await;
    let sandbox = nix::unistd::Pid::from_raw(sandbox.cast_signed());
    nix::sys::signal::kill(sandbox, Signal::SIGKILL).unwrap();
    assert_eq!(exit_of(&shim, "pod").await, 137);
    assert_eq!(exit_of(&shim, "one").await, 137);
    for id in ["one", "pod"] {
        let request = DeleteRequest {
            id: id.into(),
            ..Default::default()
        };
        let deleted = shim.task.delete(context::with_timeout(0), &request).await;
        assert_eq!(deleted.unwrap().exit_status, 137);
    }
}

#[tokio::test]
async fn a_pods_pid_namespace_is_found_again_after_its_shim_was_killed() {
    let node = private();
    let shim = pod(&node, &json!([{ "type": "pid" }])).await;
    let sandbox = pid(&shim, "pod").await;
    let shared = namespace(sandbox);
    assert_eq!(namespace_of(&shim, &node, "one", of(sandbox)).await, shared);
    shim.signal(Signal::SIGKILL);
    shim.ended();
    bundle(&node, "late", &json!([of(sandbox)]));
    let late = Shim::connect(&node.start("late")).await;
    assert_eq!(
        namespace_of(&late, &node, "late", of(sandbox)).await,
        shared
    );
    late.remove("late").await;
    for id in ["one", "pod"] {
        let deleted = node.command(id, &["-bundle", ".", "delete"]).output();
        assert!(deleted.unwrap().status.success());
    }
    assert!(fs::metadata(format!("/proc/{sandbox}")).is_err());
    // Its number is not taken for it, whatever has it by now.
    let config = bundle(&node, "after", &json!([of(sandbox)]));
    let after = Shim::connect(&node.start("after")).await;
    let error = after.create("after", &config).await.unwrap_err();
    assert!(format!("{error:?}").contains("pid namespace"), "{error:?}");
    after.shutdown().await;
    after.ended();
}
