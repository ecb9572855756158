//! A Kubernetes of one node: a control plane, and a kubelet that uses the containerd of a [`Node`].
//!
//! Its ports and its folder for volumes are fixed, and it changes what a kubelet changes. So it runs
//! only in the namespaces that `tests/kubernetes` makes for it.

mod daemons;
mod dns;
mod network;
mod space;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use serde_json::{Value, json};

pub use self::{
    network::NODE,
    space::{OURS, RUNC, Space, container, end_of, pod},
};
use crate::{
    Node, Options,
    config::INSTALLED,
    containerd::locked,
    ctr::Output,
    leftovers::{self, Expected},
    procfs::Process,
    suite::{Suite, target_dir},
};

/// How long anything in a cluster may take: it is many programs, which poll.
const PATIENCE: Duration = Duration::from_secs(240);

/// Between two questions to the API server.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The kubelet's folder: on a filesystem that workloads see by the overlay, as `/var/lib` is.
const KUBELET: &str = "/mnt/kubelet";

/// The cgroups that the kubelet makes for all pods of a class, and keeps.
const CLASSES: [&str; 3] = ["kubepods", "kubepods/besteffort", "kubepods/burstable"];

/// A Kubernetes of one node. It ends, with all that it runs, when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    node: Node,
    daemons: Mutex<BTreeMap<&'static str, Child>>,
    /// What failed tests have left behind, of which others are not guilty.
    left: Mutex<Vec<String>>,
}

impl Cluster {
    /// Starts a cluster over a suite's containerd, and waits until its node takes pods.
    pub fn start(suite: Suite) -> Self {
        assert!(
            TcpListener::bind((NODE, 0)).is_ok(),
            "a cluster needs namespaces of its own: run tests/kubernetes"
        );
        let options = Options::default()
            .overlay()
            .installed()
            .env("REAPER_ANNOTATIONS_ALLOW", "overlay-scope");
        let node = Node::start(suite, options);
        network::install(&node.dir().join("cni"));
        let cluster = Self {
            node,
            daemons: Mutex::default(),
            left: Mutex::default(),
        };
        let dir = cluster.dir();
        fs::create_dir(&dir).expect("make a folder for the cluster");
        daemons::write_files(&dir, cluster.node.marker(), &cluster.node.socket());
        cluster.node.make_cgroup();
        for name in ["etcd", "kube-apiserver"] {
            cluster.start_daemon(name);
        }
        eventually("the API server is ready", || {
            let answer = cluster.kubectl(&["get", "--raw=/readyz"]);
            (answer.code == 0).then_some(())
        });
        for name in [
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        ] {
            cluster.start_daemon(name);
        }
        for class in INSTALLED.into_iter().chain([RUNC]) {
            cluster.apply(&json!({
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
                "metadata": { "name": class }, "handler": class,
            }));
        }
        dns::serve();
        for object in dns::objects() {
            cluster.apply(&object);
        }
        cluster.until_ready();
        cluster
    }

    /// The node that pods run on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Waits until pods are scheduled to the node.
    pub fn until_ready(&self) {
        eventually("the node is ready", || {
            let node = self.get(&format!("/api/v1/nodes/{}", daemons::NODE_NAME))?;
            let ready = conditions(&node)
                .get("Ready")
                .is_some_and(|status| status == "True");
            (ready && node["spec"]["taints"].is_null()).then_some(())
        });
    }

    /// Runs `kubectl`.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        Output::of(self.kubectl_command().args(args))
    }

    /// `kubectl`, with its arguments still to come.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(program("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.dir().join("kubeconfig"))
            .env("HOME", self.dir());
        command
    }

    /// Makes an object, or changes it, by `kubectl apply`.
    pub fn apply(&self, object: &Value) {
        let file = self.dir().join("object.json");
        fs::write(&file, object.to_string()).expect("write an object");
        let file = file.to_str().expect("a path in UTF-8");
        self.kubectl(&["apply", "-f", file]).assert_success();
    }

    /// What the API server has at a path, unless there is nothing.
    pub fn get(&self, path: &str) -> Option<Value> {
        ask(path)
    }

    /// Ends the kubelet by a signal, and starts it again.
    pub fn restart_kubelet(&self, signal: Signal, meanwhile: impl FnOnce()) {
        self.end_daemon("kubelet", signal);
        meanwhile();
        self.start_daemon("kubelet");
    }

    /// Restarts the kubelet with another policy for processors. The second is reserved for all but exclusive use.
    pub fn manage_processors(&self, policy: &str) {
        self.restart_kubelet(Signal::SIGTERM, || {
            daemons::set_cpu_policy(&self.dir(), policy);
            // It refuses to start with the state of another policy.
            let _ = fs::remove_file(Path::new(KUBELET).join("cpu_manager_state"));
        });
    }

    /// Takes all from the node that the end of its power takes, and starts it again.
    pub fn reboot(&self) {
        self.end_daemon("kubelet", Signal::SIGKILL);
        let spared: Vec<u32> = locked(&self.daemons).values().map(Child::id).collect();
        self.node.lose_power(&spared);
        for path in mounts_below(KUBELET).iter().rev() {
            umount2(path.as_str(), MntFlags::MNT_DETACH).expect("unmount a volume");
        }
        let boot = self.dir().join("boot");
        let is_first = !boot.exists();
        let another = fs::read("/proc/sys/kernel/random/uuid").expect("a new name");
        fs::write(&boot, another).expect("write the name of a boot");
        if is_first {
            let (none, name) = (None::<&str>, "/proc/sys/kernel/random/boot_id");
            mount(Some(&boot), name, none, MsFlags::MS_BIND, none).expect("rename the boot");
        }
        self.node.make_cgroup();
        self.node.start_containerd();
        self.start_daemon("kubelet");
    }

    /// Panics with a list unless all that pods had on the node is gone, or goes in time.
    pub fn assert_nothing_left(&self) {
        let start = Instant::now();
        eventually("nothing is left behind", || {
            let left = self.find_left();
            if left.is_empty() {
                return Some(());
            }
            assert!(
                start.elapsed() < PATIENCE / 2,
                "left behind:\n  {}",
                left.join("\n  ")
            );
            None
        });
    }

    /// Takes what is left behind now for known.
    pub fn forgive(&self) {
        let left = self.find_left();
        locked(&self.left).extend(left);
    }

    /// Prints what tells why something failed.
    pub fn show(&self, namespace: &str) {
        for what in [
            &["get", "pods", "-o", "wide"][..],
            &["describe", "pods"],
            &["get", "events"],
        ] {
            let mut args = vec!["--namespace", namespace];
            args.extend(what);
            eprintln!(
                "--- kubectl {}\n{}",
                what.join(" "),
                self.kubectl(&args).text()
            );
        }
        self.node.show_logs();
    }

    fn find_left(&self) -> Vec<String> {
        let expected = Expected {
            processes: locked(&self.daemons).values().map(Child::id).collect(),
            cgroups: &CLASSES,
        };
        let mut left = leftovers::find_beside(&self.node, &expected);
        let folders = fs::read_dir(Path::new(KUBELET).join("pods"))
            .into_iter()
            .flatten();
        left.extend(
            folders
                .flatten()
                .map(|pod| format!("folder {}", pod.path().display())),
        );
        left.extend(
            mounts_below(KUBELET)
                .into_iter()
                .map(|path| format!("mount {path}")),
        );
        let known = locked(&self.left);
        left.retain(|line| !known.contains(line));
        left
    }

    /// The folder of the cluster's own files.
    fn dir(&self) -> PathBuf {
        self.node.dir().join("kubernetes")
    }

    fn start_daemon(&self, name: &'static str) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.node.dir().join("logs").join(name))
            .expect("open a daemon's log");
        // As containerd does, it ends with this process.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program(name))
            .args(daemons::arguments(name, &self.dir()))
            .env("HOME", self.dir())
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor of the log"))
            .stderr(log);
        let child = command.spawn().expect("start a daemon");
        locked(&self.daemons).insert(name, child);
    }

    fn end_daemon(&self, name: &str, signal: Signal) {
        let Some(mut child) = locked(&self.daemons).remove(name) else {
            return;
        };
        if let Some(process) = Process::find(child.id()) {
            process.signal(signal);
        }
        child.wait().expect("wait for a daemon");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            self.node.show_logs();
        }
        // The kubelet first: it would start pods again.
        for name in [
            "kubelet",
            "kubectl",
            "kube-proxy",
            "kube-scheduler",
            "kube-controller-manager",
            "kube-apiserver",
            "etcd",
        ] {
            self.end_daemon(name, Signal::SIGKILL);
        }
    }
}

/// Waits until `condition` gives something, and panics with `what` after a long time.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        thread::sleep(ASK_AGAIN);
    }
}

/// What the API server has at a path, unless there is nothing.
fn ask(path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", daemons::PROXY_PORT)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then_some(())?;
    serde_json::from_str(body).ok()
}

/// The mount points below a folder, outer ones first.
fn mounts_below(folder: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|path| path.starts_with(folder))
        .map(str::to_owned)
        .collect()
}

/// The conditions of an object's status, and whether each holds.
pub fn conditions(object: &Value) -> BTreeMap<String, String> {
    let conditions = object["status"]["conditions"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    conditions
        .into_iter()
        .flatten()
        .map(|condition| (text(&condition["type"]), text(&condition["status"])))
        .collect()
}

/// A program of Kubernetes.
fn program(name: &str) -> PathBuf {
    let store = env::var_os("REAPER_KUBERNETES_DIR")
        .map_or_else(|| target_dir().join("kubernetes"), PathBuf::from);
    let program = store.join("bin").join(name);
    assert!(
        program.exists(),
        "no {}: run tests/provision kubernetes",
        program.display()
    );
    program
}
