//! The network of a pod, which its sandbox names by path.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, process::Command};

use containerd_shim_protos::{
    api::*,
    protobuf::{MessageField, well_known_types::any::Any},
    ttrpc::context,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Node, Shim};

/// A network that is kept by a file alone, as CNI's plugins get it.
struct Network(PathBuf);

impl Network {
    fn new(node: &Node) -> Self {
        let file = node.path().join("cni-1");
        fs::write(&file, "").unwrap();
        let option = format!("--net={}", file.display());
        let made = Command::new("unshare").args([&option, "true"]).status();
        assert!(made.unwrap().success());
        Self(file)
    }

    fn inode(&self) -> u64 {
        fs::metadata(&self.0).unwrap().ino()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

const PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// Writes a bundle as the CRI does, whose namespaces are these.
fn bundle(node: &Node, id: &str, namespaces: &Value) -> PathBuf {
    let bundle = node.bundle(id, "pod");
    let config = bundle.join("config.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    document["process"]["args"] = match id {
        "pod" => json!(["/pause"]),
        _ => json!(["/bin/sleep", "1000"]),
    };
    document["linux"]["namespaces"] = namespaces.clone();
    if id == "pod" {
        document["linux"]["sysctl"] = json!({ PORTS: "79" });
    }
    fs::write(config, document.to_string()).unwrap();
    bundle
}

/// The namespaces of a container in the pod whose sandbox has this pid.
fn of_sandbox(pid: u32) -> Value {
    let one =
        |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
    json!([
        {"type": "mount"}, {"type": "pid"}, {"type": "cgroup"},
        one("ipc", "ipc"), one("uts", "uts"), one("network", "net"),
    ])
}

async fn create(shim: &Shim, node: &Node, id: &str, sandbox: u32) -> u64 {
    let bundle = bundle(node, id, &of_sandbox(sandbox));
    shim.create(id, &bundle).await.unwrap();
    let request = StateRequest {
        id: id.into(),
        ..Default::default()
    };
    let state = shim.task.state(context::with_timeout(0), &request).await;
    let pid = state.unwrap().pid;
    fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino()
}

/// The network of a process that is added to a container, and the pod's own parameter there.
async fn exec(shim: &Shim, node: &Node, id: &str) -> String {
    let output = node.path().join(format!("output-{id}"));
    let script = "stat -Lc %i /proc/self/ns/net; ls /sys/class/net; \
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let spec =
        json!({"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/usr/bin:/bin"]});
    let request = ExecProcessRequest {
        id: id.into(),
        exec_id: "look".into(),
        stdout: format!("file://{}", output.display()),
        spec: MessageField::some(Any {
            value: spec.to_string().into_bytes(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let none = || context::with_timeout(0);
    shim.task.exec(none(), &request).await.unwrap();
    let request = StartRequest {
        id: id.into(),
        exec_id: "look".into(),
        ..Default::default()
    };
    shim.task.start(none(), &request).await.unwrap();
    let request = WaitRequest {
        id: id.into(),
        exec_id: "look".into(),
        ..Default::default()
    };
    shim.task.wait(none(), &request).await.unwrap();
    fs::read_to_string(output).unwrap()
}

#[tokio::test]
async fn containers_of_a_pod_are_in_the_network_that_its_sandbox_names() {
    let node = Node::new();
    let network = Network::new(&node);
    let pod = json!([{"type": "network", "path": network.0}, {"type": "ipc"}, {"type": "uts"}]);
    let sandbox = bundle(&node, "pod", &pod);
    let shim = Shim::connect(&node.start("pod")).await;
    shim.create("pod", &sandbox).await.unwrap();
    let expected = format!("{}\nlo\n79\n", network.inode());
    assert_eq!(create(&shim, &node, "web", shim.pid).await, network.inode());
    assert_eq!(exec(&shim, &node, "web").await, expected);

    // What the sandbox's pid stands for by then is another process, or none.
    let old = shim.pid;
    shim.signal(Signal::SIGKILL);
    shim.ended();
    bundle(&node, "late", &of_sandbox(old));
    let shim = Shim::connect(&node.start("late")).await;
    assert_ne!(shim.pid, old);
    assert_eq!(create(&shim, &node, "late", old).await, network.inode());
    assert_eq!(exec(&shim, &node, "late").await, expected);
    shim.remove("late").await;
    for id in ["web", "pod"] {
        assert!(
            node.command(id, &["-bundle", ".", "delete"])
                .output()
                .unwrap()
                .status
                .success()
        );
    }
}

#[tokio::test]
async fn a_pod_that_the_policy_refuses_changes_nothing_in_its_network() {
    let node = Node::new();
    let network = Network::new(&node);
    let config = node.path().join("reaper.toml");
    fs::write(&config, "[policy]\nnamespaces = [\"tools\"]\n").unwrap();
    let node = node.env("REAPER_CONFIG", config.to_str().unwrap());
    let pod = json!([{"type": "network", "path": network.0}]);
    let sandbox = bundle(&node, "pod", &pod);
    let shim = Shim::connect(&node.start("pod")).await;
    let refused = shim.create("pod", &sandbox).await.unwrap_err();
    assert!(
        refused.to_string().contains("policy.namespaces"),
        "{refused}"
    );
    let option = format!("--net={}", network.0.display());
    let file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let seen = Command::new("nsenter")
        .args([&option, "cat", file])
        .output();
    assert_ne!(String::from_utf8_lossy(&seen.unwrap().stdout).trim(), "79");
    shim.shutdown().await;
}

#[tokio::test]
async fn a_pod_of_the_hosts_network_and_one_that_the_admin_puts_there_join_none() {
    let hosts = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let node = Node::new();
    let shim = node.pod("pod").await;
    assert_eq!(create(&shim, &node, "web", shim.pid).await, hosts);
    shim.remove("web").await;
    shim.remove("pod").await;

    let node = Node::new().env("REAPER_NETWORK", "host");
    let network = Network::new(&node);
    let pod = json!([{"type": "network", "path": network.0}]);
    let sandbox = bundle(&node, "pod", &pod);
    let shim = Shim::connect(&node.start("pod")).await;
    shim.create("pod", &sandbox).await.unwrap();
    assert_eq!(create(&shim, &node, "web", shim.pid).await, hosts);
    shim.remove("web").await;
    shim.remove("pod").await;
}
