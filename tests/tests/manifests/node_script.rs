//! The scripts of the chart, with `reaper-runtime node` on a root of the test's and a server that has a node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reaper_tests::suite::reaper_bin;
use serde_json::json;

use crate::{
    api_server::{ApiServer, DAEMONSET, LEASE, NODE},
    folder,
};

const OPT_IN: &str = "reaper.runtime/install";
const STATE: &str = "reaper.runtime/state";

struct Rig {
    server: ApiServer,
    dir: tempfile::TempDir,
    /// What is executed in the place of entering the node's namespaces.
    enter: String,
}

impl Rig {
    /// A node that is labelled, with a containerd that has a configuration.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["root/etc/containerd", "run", "account"] {
            fs::create_dir_all(dir.path().join(name)).expect("make a folder");
        }
        let rig = Self {
            server: ApiServer::start(),
            dir,
            enter: String::new(),
        };
        fs::write(rig.config(), "version = 2\n").expect("write a configuration");
        for (name, text) in [("token", "a-token"), ("ca.crt", "")] {
            fs::write(rig.dir.path().join("account").join(name), text).expect("write a file");
        }
        rig.server.objects().node["metadata"]["labels"][OPT_IN] = "true".into();
        rig
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn config(&self) -> PathBuf {
        self.root().join("etc/containerd/config.toml")
    }

    fn is_ready(&self) -> bool {
        self.dir.path().join("run/ready").exists()
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .arg(folder().join("chart/files").join(script))
            .env("NODE_NAME", "n1")
            .env("NAMESPACE", "reaper-system")
            .env("API", &self.server.url)
            .env("ACCOUNT", self.dir.path().join("account"))
            .env("RUN", self.dir.path().join("run"))
            .env("PROGRAMS", reaper_bin())
            .env("ENTER", &self.enter)
            .env("SYSROOT", self.root())
            .env("ONCE", "1");
        command
    }

    /// One round of the script, as of a pod with this mode.
    fn round(&self, mode: &str) -> Output {
        let output = self.command("node.sh").env("MODE", mode).output();
        let output = output.expect("run the script");
        eprintln!("{mode}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            self.server.objects().strangers,
            0,
            "each request has the token"
        );
        output
    }

    fn installed(&self) -> bool {
        self.root()
            .join("usr/local/bin/containerd-shim-reaper-v2")
            .exists()
    }

    /// The type, reason and message of the last event.
    fn last_event(&self) -> (String, String, String) {
        let objects = self.server.objects();
        let event = objects.events.last().expect("an event");
        assert_eq!(event["involvedObject"]["name"], "n1");
        let text = |key: &str| event[key].as_str().expect("a text").to_owned();
        (text("type"), text("reason"), text("message"))
    }
}

#[test]
fn a_labelled_node_is_installed_and_said_to_be_ready_at_the_end() {
    let rig = Rig::new();
    rig.round("install");
    assert!(rig.installed() && rig.is_ready());
    let config = fs::read_to_string(rig.config()).expect("read the configuration");
    assert!(config.contains("runtimes.reaper-v2-pod]"), "{config}");
    {
        let objects = rig.server.objects();
        assert_eq!(objects.label(STATE), Some("ready"));
        let condition = objects.condition().expect("a condition");
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("True"), &json!("Installed"))
        );
        assert_eq!(objects.lease, None, "the next node may");
        // The label with which pods come is the last change.
        assert_eq!(objects.changes.last(), Some(&format!("PATCH {NODE}")));
        assert_eq!(objects.node["status"]["conditions"][0]["type"], "Ready");
    }
    assert_eq!(rig.last_event().0, "Normal");
    // All is in place: nothing is written, neither there nor here.
    let before = rig.server.objects().changes.len();
    rig.round("install");
    assert_eq!(rig.server.objects().changes.len(), before);
    assert!(rig.is_ready());
}

#[test]
fn a_failure_takes_the_label_and_is_a_condition_and_one_event() {
    let rig = Rig::new();
    rig.round("install");
    // A runtime of that name that is another's is refused.
    fs::remove_file(rig.root().join("etc/reaper/install.json")).expect("forget it");
    let other = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.reaper-v2]\n  \
                 runtime_type = \"io.containerd.runc.v2\"\n";
    fs::write(rig.config(), other).expect("write a configuration");
    rig.round("install");
    assert!(!rig.is_ready());
    let (kind, reason, message) = rig.last_event();
    assert_eq!(
        (kind.as_str(), reason.as_str()),
        ("Warning", "InstallFailed")
    );
    assert!(message.contains("reaper-v2 that is another's"), "{message}");
    let events = {
        let objects = rig.server.objects();
        assert_eq!(objects.label(STATE), Some("failed"));
        let condition = objects.condition().expect("a condition");
        assert_eq!(condition["status"], "False");
        assert_eq!(condition["message"], message);
        assert_eq!(objects.lease, None, "other nodes may");
        objects.events.len()
    };
    rig.round("install");
    assert_eq!(rig.server.objects().events.len(), events, "it is said once");
    // Put right by its administrator, it goes on.
    fs::write(rig.config(), "version = 2\n").expect("write a configuration");
    rig.round("install");
    assert_eq!(rig.server.objects().label(STATE), Some("ready"));
    assert!(rig.is_ready());
}

#[test]
fn one_node_at_a_time_changes_and_a_lease_of_a_node_that_is_gone_expires() {
    let rig = Rig::new();
    let lease = |age: u64| {
        let now = SystemTime::now() - Duration::from_secs(age);
        let seconds = now.duration_since(UNIX_EPOCH).expect("a time").as_secs();
        let time = Command::new("date")
            .args(["-u", &format!("-d@{seconds}"), "+%Y-%m-%dT%H:%M:%S.000000Z"])
            .output()
            .expect("run date");
        let time = String::from_utf8_lossy(&time.stdout).trim().to_owned();
        Some(
            json!({ "metadata": { "name": "reaper-node", "resourceVersion": "17" }, "spec": {
                "holderIdentity": "n2", "leaseDurationSeconds": 300, "renewTime": time,
            }}),
        )
    };
    rig.server.objects().lease = lease(200);
    rig.round("install");
    assert!(!rig.installed() && !rig.is_ready());
    {
        let objects = rig.server.objects();
        assert_eq!(objects.label(STATE), None);
        let lease = objects.lease.as_ref().expect("the other's lease");
        assert_eq!(lease["spec"]["holderIdentity"], "n2");
    }
    rig.server.objects().lease = lease(301);
    rig.round("install");
    assert!(rig.installed() && rig.is_ready());
    let objects = rig.server.objects();
    assert!(objects.changes.contains(&format!("PUT {LEASE}")));
    assert_eq!(objects.lease, None);
}

#[test]
fn a_node_that_loses_its_label_is_as_before() {
    let rig = Rig::new();
    rig.round("install");
    rig.server.objects().node["metadata"]["labels"] = json!({ STATE: "ready" });
    rig.round("install");
    assert_removed(&rig);
}

#[test]
fn a_pod_that_removes_leaves_the_node_as_before_and_is_ready_then() {
    let rig = Rig::new();
    rig.round("install");
    rig.round("remove");
    assert_removed(&rig);
    // As long as the pod is there it changes nothing more.
    let before = rig.server.objects().changes.len();
    rig.round("remove");
    assert_eq!(rig.server.objects().changes.len(), before);
    assert!(rig.is_ready());
}

fn assert_removed(rig: &Rig) {
    assert!(!rig.installed() && rig.is_ready());
    let config = fs::read_to_string(rig.config()).expect("read the configuration");
    assert_eq!(config, "version = 2\n");
    assert_eq!(rig.last_event().1, "Removed");
    let objects = rig.server.objects();
    assert_eq!((objects.label(STATE), objects.condition()), (None, None));
    // No pod comes while it is taken out, and the label is what keeps this pod: it goes last.
    assert_eq!(objects.changes.last(), Some(&format!("PATCH {NODE}")));
    assert_eq!(objects.lease, None);
}

#[test]
fn a_removal_that_is_refused_is_said_and_leaves_the_node_without_new_pods() {
    let mut rig = Rig::new();
    rig.round("install");
    // What `node uninstall` says on a node where pods of Reaper run.
    let refusing = rig.dir.path().join("refuse");
    fs::write(
        &refusing,
        "#!/bin/sh\necho '2 containers or pods of Reaper run' >&2\nexit 1\n",
    )
    .expect("write a program");
    make_executable(&refusing);
    rig.enter = refusing.display().to_string();
    rig.round("remove");
    assert!(rig.installed() && !rig.is_ready());
    let expected = (
        "Warning",
        "RemovalFailed",
        "2 containers or pods of Reaper run",
    );
    let (kind, reason, message) = rig.last_event();
    assert_eq!((kind.as_str(), reason.as_str(), message.as_str()), expected);
    assert_eq!(rig.server.objects().label(STATE), Some("removing"));
    // After their end it goes on.
    rig.enter.clear();
    rig.round("remove");
    assert_removed(&rig);
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("make it executable");
}

#[test]
fn the_hook_has_the_daemonset_remove_and_ends_when_all_pods_of_it_are_ready() {
    let rig = Rig::new();
    let done = |generation: i64, updated: i64, ready: i64| {
        let status = json!({ "observedGeneration": generation, "desiredNumberScheduled": 3,
            "updatedNumberScheduled": updated, "numberReady": ready });
        rig.server.objects().daemonset["status"] = status;
        rig.command("removal.sh")
            .env("LIMIT", "2")
            .output()
            .expect("run the script")
    };
    // Neither those of the generation before count, nor those that are not done.
    for (generation, updated, ready) in [(1, 3, 3), (2, 2, 3), (2, 3, 2)] {
        let output = done(generation, updated, ready);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("kubectl describe nodes"));
    }
    assert_eq!(done(2, 3, 3).status.code(), Some(0));
    // Of no node that has it there are no pods.
    rig.server.objects().daemonset["status"] = json!({ "observedGeneration": 2 });
    let output = rig.command("removal.sh").env("LIMIT", "2").output();
    assert_eq!(output.expect("run the script").status.code(), Some(0));
    let objects = rig.server.objects();
    let pods = &objects.daemonset["spec"]["template"]["spec"]["containers"];
    let remove = json!([{ "name": "MODE", "value": "remove" }]);
    assert_eq!(pods[0], json!({ "name": "node", "env": remove }));
    assert!(
        objects
            .changes
            .iter()
            .all(|change| *change == format!("PATCH {DAEMONSET}"))
    );
    assert_eq!(objects.strangers, 0);
}
