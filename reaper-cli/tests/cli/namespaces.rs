//! Namespaces that a bundle names by path.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, process::Command};

use nix::sys::wait::waitpid;
use serde_json::json;

use crate::rig::{Rig, become_subreaper, pid_in, shell};

/// A network that is kept by a file alone.
struct Network(PathBuf);

impl Network {
    fn new(rig: &Rig) -> Self {
        let file = rig.path("network");
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

const LOOK: &str = "stat -Lc %i /proc/self/ns/net; ls /sys/class/net; \
    touch /sys/kernel/x 2>/dev/null; ls -d /sys/fs/cgroup";

fn bundle(rig: &Rig, network: &Network) -> String {
    let fields = json!({
        "mounts": [{
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }],
        "linux": {
            "namespaces": [{"type": "network", "path": network.0}, {"type": "mount"}],
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80"},
        },
    });
    rig.bundle_with("bundle", &shell("exec sleep 1000"), &fields)
}

#[test]
fn a_network_of_a_bundle_is_that_of_run_and_exec() {
    for rig in [Rig::new(), Rig::with_overlay()] {
        let network = Network::new(&rig);
        let bundle = bundle(&rig, &network);
        let file = rig.path("pid");
        let pid_file = file.to_str().unwrap();
        become_subreaper();
        rig.quietly(&["create", "--bundle", &bundle, "--pid-file", pid_file, "c"]);
        rig.quietly(&["start", "c"]);
        // Who enters by the pid file is where the container is.
        let proxy = pid_in(&file);
        let entered = fs::metadata(format!("/proc/{proxy}/ns/net")).unwrap();
        assert_eq!(entered.ino(), network.inode());
        let pid = rig.state("c")["pid"].to_string();
        let init = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
        assert_eq!(init, network.inode());
        let expected = format!("{}\nlo\n/sys/fs/cgroup\n", network.inode());
        assert_eq!(rig.ok(&["exec", "c", "sh", "-c", LOOK]), expected);
        let table = rig.ok(&["exec", "c", "cat", "/proc/self/mountinfo"]);
        let sys = table.lines().rfind(|line| line.contains(" /sys ")).unwrap();
        assert!(sys.contains(" / /sys ro,"), "{sys}");
        rig.ok(&["delete", "--force", "c"]);
        waitpid(proxy, None).unwrap();
    }
}

#[test]
fn a_network_of_a_bundle_is_not_joined_where_the_admin_says_host() {
    let rig = Rig::new();
    let log = rig.path("runtime.log");
    rig.configure("network = \"host\"\n", &format!("runtime = {log:?}\n"));
    let network = Network::new(&rig);
    let bundle = bundle(&rig, &network);
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let seen = rig.ok(&["exec", "c", "stat", "-Lc", "%i", "/proc/self/ns/net"]);
    let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(seen.trim(), own.to_string());
    rig.ok(&["delete", "--force", "c"]);
    let log = fs::read_to_string(log).unwrap();
    assert!(
        log.contains("the network of the spec is not joined"),
        "{log}"
    );

    // What engines do not ask for by themselves is refused there.
    let fields = json!({"linux": {
        "namespaces": [{"type": "network", "path": network.0}],
        "sysctl": {"net.ipv4.tcp_syncookies": "1"},
    }});
    let bundle = rig.bundle_with("other", &shell("true"), &fields);
    let said = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    assert!(said.contains("net.ipv4.tcp_syncookies"), "{said}");
}
