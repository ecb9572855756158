//! Namespaces that a container joins.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::mount::{MntFlags, umount2};
use reaper_exec::{ContainerConfig, Executor as _, set_network_parameters};
use reaper_spec::{ContainerId, NamespaceKind, NamespacePath};
use tempfile::TempDir;

use crate::rig::{Rig, cases};

cases! {
    a_network_that_is_named_by_path_is_that_of_init_and_exec,
    parameters_are_set_in_the_network_that_is_joined,
    parameters_are_not_set_in_the_nodes_network_that_is_named_by_path,
    names_and_ipc_that_are_named_by_path_are_joined,
    the_hosts_own_namespaces_may_be_named_by_path,
    a_namespace_that_cannot_be_joined_is_named_and_leaves_nothing,
}

/// Namespaces that are kept by files alone.
struct Kept {
    folder: TempDir,
}

impl Kept {
    fn new(kinds: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        for kind in kinds {
            let file = folder.path().join(kind);
            fs::write(&file, "").unwrap();
            unshare.arg(format!("--{kind}={}", file.display()));
        }
        let made = unshare
            .args(["sh", "-c", "ip link set lo up; hostname of-the-test"])
            .status();
        assert!(made.unwrap().success());
        Self { folder }
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.folder.path().join(kind)
    }

    fn inode(&self, kind: &str) -> u64 {
        fs::metadata(self.path(kind)).unwrap().ino()
    }

    fn let_go(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            // It may not be mounted any more.
            let _ = umount2(&entry.unwrap().path(), MntFlags::MNT_DETACH);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn joining(rig: &Rig, kind: NamespaceKind, path: &Path) -> ContainerConfig {
    let (mut new, _output) = rig.shell("joins", "exec sleep 1000");
    new.namespaces = vec![NamespacePath {
        kind,
        path: path.to_owned(),
        process: None,
    }];
    new
}

async fn start(rig: &Rig, new: ContainerConfig) -> ContainerId {
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    id
}

/// What a line of shell in the container prints.
async fn shown(rig: &Rig, id: &ContainerId, exec: &str, script: &str) -> String {
    let (target, output) = rig.exec_shell(id, exec, script).await;
    rig.engine.executor().wait(&target).await.unwrap();
    output.all().trim().to_owned()
}

async fn a_network_that_is_named_by_path_is_that_of_init_and_exec(rig: &Rig) {
    let kept = Kept::new(&["net"]);
    let inode = kept.inode("net");
    assert_ne!(inode, fs::metadata("/proc/self/ns/net").unwrap().ino());
    let id = start(rig, joining(rig, NamespaceKind::Network, &kept.path("net"))).await;
    let pid = rig.engine.state(&id).await.unwrap().process.unwrap().pid;
    let init = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
    assert_eq!(init, inode);
    // The path may be gone when something is added.
    kept.let_go();
    let exec = shown(rig, &id, "look", "stat -Lc %i /proc/self/ns/net").await;
    assert_eq!(exec, inode.to_string());
    let devices = shown(rig, &id, "devices", "ls /sys/class/net").await;
    assert_eq!(devices, "lo");
    let address = shown(rig, &id, "follow", "cat /sys/class/net/lo/address").await;
    assert_eq!(address, "00:00:00:00:00:00");
    // What the host mounts below /sys is there still.
    let below = "sed -n 's,^[^ ]* [^ ]* [^ ]* [^ ]* \\(/sys/[^ ]*\\) .*,\\1,p' /proc/self/mountinfo | sort -u";
    let hosts = Command::new("sh").args(["-c", below]).output().unwrap();
    let hosts = String::from_utf8(hosts.stdout).unwrap();
    assert_eq!(shown(rig, &id, "mounts", below).await, hosts.trim());
    rig.engine.delete(&id, true).await.unwrap();
}

async fn parameters_are_set_in_the_network_that_is_joined(rig: &Rig) {
    const NAME: &str = "net.ipv4.ip_unprivileged_port_start";
    const FILE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let kept = Kept::new(&["net"]);
    let hosts = fs::read_to_string(FILE).unwrap();
    let mut new = joining(rig, NamespaceKind::Network, &kept.path("net"));
    new.sysctls = [(NAME.to_owned(), "77".to_owned())].into();
    let id = start(rig, new).await;
    let show = format!("cat {FILE}");
    assert_eq!(shown(rig, &id, "look", &show).await, "77");
    // By another program, which stays in its own.
    let sysctls = [(NAME.to_owned(), "78".to_owned())].into();
    set_network_parameters(&kept.path("net"), &sysctls).unwrap();
    assert_eq!(shown(rig, &id, "again", &show).await, "78");
    assert_eq!(fs::read_to_string(FILE).unwrap(), hosts);
    rig.engine.delete(&id, true).await.unwrap();

    let mut new = joining(rig, NamespaceKind::Network, &kept.path("net"));
    new.sysctls = [("net.ipv4.no_such".to_owned(), "1".to_owned())].into();
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    assert!(error.contains("net.ipv4.no_such"), "{error}");
}

async fn parameters_are_not_set_in_the_nodes_network_that_is_named_by_path(rig: &Rig) {
    // The value that it has: were it written all the same, nothing would change on the node.
    const NAME: &str = "net.ipv4.conf.lo.log_martians";
    const FILE: &str = "/proc/sys/net/ipv4/conf/lo/log_martians";
    let hosts = fs::read_to_string(FILE).unwrap();
    let own = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
    let sysctls = [(NAME.to_owned(), hosts.trim().to_owned())].into();
    let refused = set_network_parameters(&own, &sysctls).unwrap_err();
    assert!(refused.to_string().contains(NAME), "{refused}");
    let mut new = joining(rig, NamespaceKind::Network, &own);
    new.sysctls = sysctls;
    let refused = rig.engine.create(new).await.unwrap_err().to_string();
    let reason =
        format!("set the kernel parameter {NAME}: the network that is joined is the node's");
    assert!(refused.contains(&reason), "{refused}");

    // What engines ask for by themselves is left. No kernel takes this value.
    let sysctls = [(
        "net.ipv4.ip_unprivileged_port_start".to_owned(),
        "no number".to_owned(),
    )]
    .into();
    set_network_parameters(&own, &sysctls).unwrap();
    let mut new = joining(rig, NamespaceKind::Network, &own);
    new.sysctls = sysctls;
    let id = start(rig, new).await;
    rig.engine.delete(&id, true).await.unwrap();
}

async fn names_and_ipc_that_are_named_by_path_are_joined(rig: &Rig) {
    let kept = Kept::new(&["uts", "ipc"]);
    let mut new = joining(rig, NamespaceKind::Uts, &kept.path("uts"));
    new.namespaces.push(NamespacePath {
        kind: NamespaceKind::Ipc,
        path: kept.path("ipc"),
        process: None,
    });
    let id = start(rig, new).await;
    assert_eq!(shown(rig, &id, "name", "hostname").await, "of-the-test");
    let ipc = shown(rig, &id, "ipc", "stat -Lc %i /proc/self/ns/ipc").await;
    assert_eq!(ipc, kept.inode("ipc").to_string());
    rig.engine.delete(&id, true).await.unwrap();
}

async fn the_hosts_own_namespaces_may_be_named_by_path(rig: &Rig) {
    for (kind, name) in [
        (NamespaceKind::Pid, "pid"),
        (NamespaceKind::Mount, "mnt"),
        (NamespaceKind::Network, "net"),
    ] {
        let path = format!("/proc/{}/ns/{name}", std::process::id());
        let id = start(rig, joining(rig, kind, Path::new(&path))).await;
        let seen = shown(rig, &id, "look", "stat -Lc %i /proc/self/ns/net").await;
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(seen, own.to_string());
        rig.engine.delete(&id, true).await.unwrap();
    }
}

async fn a_namespace_that_cannot_be_joined_is_named_and_leaves_nothing(rig: &Rig) {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    let missing = folder.path().join("missing");
    let uts = PathBuf::from("/proc/self/ns/uts");
    for (kind, path, reason) in [
        (NamespaceKind::Network, &plain, "Invalid argument"),
        (NamespaceKind::Network, &missing, "No such file"),
        (NamespaceKind::Network, &uts, "Invalid argument"),
        (NamespaceKind::Pid, &plain, "Invalid argument"),
        (
            NamespaceKind::Mount,
            &plain,
            "a mount namespace is not supported",
        ),
    ] {
        let new = joining(rig, kind, path);
        let error = rig.engine.create(new).await.unwrap_err().to_string();
        let step = format!("join the {kind} namespace {}", path.display());
        assert!(error.contains(&step) && error.contains(reason), "{error}");
    }
}
