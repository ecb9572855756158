//! The network of a pod, which its sandbox names by path.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, process::Command};

use containerd_shim_protos::{
    api::*,
    protobuf::{MessageField, well_known_types::any::Any},
    ttrpc::{self, context},
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
    try_create(shim, node, id, sandbox).await.unwrap();
    let request = StateRequest {
        id: id.into(),
        ..Default::default()
    };
    let state = shim.task.state(context::with_timeout(0), &request).await;
    let pid = state.unwrap().pid;
    fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino()
}

async fn try_create(shim: &Shim, node: &Node, id: &str, sandbox: u32) -> Result<(), String> {
    let bundle = bundle(node, id, &of_sandbox(sandbox));
    shim.create(id, &bundle).await.map_err(message)
}

fn message(error: ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => status.message,
        other => other.to_string(),
    }
}

/// Changes the record of the sandbox of the pod `pod`.
fn change_record(node: &Node, change: impl Fn(&mut Value)) {
    let file = node.root().join("ns/test/pod/state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut record);
    fs::write(file, record.to_string()).unwrap();
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

#[tokio::test]
async fn container_of_a_pod_whose_sandbox_has_no_record_is_refused_and_not_in_the_hosts_network() {
    let node = Node::new();
    let network = Network::new(&node);
    let pod = json!([{"type": "network", "path": network.0}]);
    let sandbox = bundle(&node, "pod", &pod);
    let shim = Shim::connect(&node.start("pod")).await;
    shim.create("pod", &sandbox).await.unwrap();
    let records = node.root().join("ns/test");
    fs::rename(records.join("pod"), node.path().join("away")).unwrap();
    // By the shim's pid, and by that of a sandbox that had a process.
    for pid in [shim.pid, 1] {
        let error = try_create(&shim, &node, "web", pid).await.unwrap_err();
        let expected = "the network namespace of the pod of sandbox \"pod\" is not known, as there is no record \
                        of it: delete the pod, so that it is created anew";
        assert_eq!(error, expected);
        assert!(!records.join("web").exists());
    }
    fs::rename(node.path().join("away"), records.join("pod")).unwrap();
    assert_eq!(create(&shim, &node, "web", shim.pid).await, network.inode());
    shim.remove("web").await;
    shim.remove("pod").await;
}

#[tokio::test]
async fn container_of_a_sandbox_of_an_earlier_version_is_refused_unless_the_admin_says_host() {
    let hosts = fs::metadata("/proc/self/ns/net").unwrap().ino();
    for (mode, is_refused) in [("spec", true), ("host", false)] {
        let node = Node::new().env("REAPER_NETWORK", mode);
        let shim = node.pod("pod").await;
        change_record(&node, |record| {
            let notes = record["annotations"].as_object_mut().unwrap();
            assert_eq!(notes.remove("reaper.shim/network").unwrap(), "host");
        });
        if is_refused {
            let error = try_create(&shim, &node, "web", shim.pid).await.unwrap_err();
            assert!(error.contains("sandbox \"pod\""), "{error}");
            assert!(error.contains("an earlier version"), "{error}");
        } else {
            assert_eq!(create(&shim, &node, "web", shim.pid).await, hosts);
            shim.remove("web").await;
        }
        shim.remove("pod").await;
    }
}

#[tokio::test]
async fn container_that_names_no_sandbox_is_refused() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    let bundle = bundle(&node, "web", &of_sandbox(shim.pid));
    let config = bundle.join("config.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let annotations = document["annotations"].as_object_mut().unwrap();
    annotations.remove("io.kubernetes.cri.sandbox-id").unwrap();
    fs::write(config, document.to_string()).unwrap();
    let error = shim.create("web", &bundle).await.unwrap_err();
    assert!(message(error).contains("annotations do not name it"));
    shim.remove("pod").await;
}

#[tokio::test]
async fn mount_whose_source_is_elsewhere_when_it_is_opened_is_refused() {
    let node = Node::new();
    let config = node.path().join("reaper.toml");
    let rules = format!("[policy]\nhost_paths = [\"{}\"]\n", node.path().display());
    fs::write(&config, rules).unwrap();
    let node = node.env("REAPER_CONFIG", config.to_str().unwrap());
    let shim = node.pod("pod").await;
    let bundle = bundle(&node, "web", &json!([]));
    let config = bundle.join("config.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    // In the shim it is an allowed folder, and in the monitor, which mounts it, the root.
    let cwd = fs::read_link(format!("/proc/{}/cwd", shim.pid)).unwrap();
    assert!(cwd.starts_with(node.path()), "{cwd:?}");
    document["mounts"] = json!([{
        "destination": "/mnt", "type": "bind", "source": "/proc/self/cwd", "options": ["bind", "ro"],
    }]);
    fs::write(config, document.to_string()).unwrap();
    let error = message(shim.create("web", &bundle).await.unwrap_err());
    assert!(error.contains("policy.host_paths ("), "{error}");
    assert!(
        error.contains("does not allow a mount of /proc/self/cwd, which is /"),
        "{error}"
    );
    shim.remove("pod").await;
}
