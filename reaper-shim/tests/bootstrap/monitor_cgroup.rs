//! In which cgroup the shim and its monitors are.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use containerd_shim_protos::{
    api::*,
    protobuf::{CodedOutputStream, Message, well_known_types::any::Any},
    ttrpc::context,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use reaper_exec::{cgroup::Hierarchies, procfs};
use serde_json::{Value, json};

use crate::harness::{Node, Shim};

/// The cgroup of a pod, which a kubelet has made in every hierarchy, and removes.
struct PodCgroup {
    name: String,
    roots: Vec<PathBuf>,
}

impl PodCgroup {
    fn new(node: &Node) -> Self {
        let name = node.path().file_name().unwrap().to_str().unwrap();
        let found = Hierarchies::find().unwrap();
        let roots = found.v2.iter().map(|v2| v2.root().to_owned());
        let roots = roots.chain(found.v1.iter().map(|v1| v1.root().to_owned()));
        let pod = Self {
            name: format!("kubelet{name}"),
            roots: roots.collect(),
        };
        assert!(!pod.roots.is_empty(), "a hierarchy of cgroups");
        for folder in pod.folders() {
            fs::create_dir(&folder).unwrap();
            // As who makes pods' cgroups does. Before 5.11 what lies below is not counted otherwise.
            let hierarchy = folder.join("memory.use_hierarchy");
            if hierarchy.exists() {
                fs::write(hierarchy, "1").unwrap();
            }
        }
        pod
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.roots.iter().map(|root| root.join(&self.name))
    }

    /// The cgroups of shims, of all hierarchies.
    fn leaves(&self) -> Vec<PathBuf> {
        let below = self
            .folders()
            .flat_map(|folder| fs::read_dir(folder).unwrap());
        let below = below.map(|entry| entry.unwrap().path());
        let is_shims = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("reaper-shim-")
        };
        below.filter(is_shims).collect()
    }

    /// In how many hierarchies a process is in the cgroup of the shim.
    fn with(&self, pid: u32) -> usize {
        let lists = |leaf: &PathBuf| {
            let pids = fs::read_to_string(leaf.join("cgroup.procs")).unwrap();
            pids.lines().any(|line| line == pid.to_string())
        };
        self.leaves().iter().filter(|leaf| lists(leaf)).count()
    }

    /// What is charged to it; `None` where there is no controller of memory.
    fn memory(&self) -> Option<u64> {
        let files = ["memory.usage_in_bytes", "memory.current"];
        let mut found = self
            .folders()
            .flat_map(|folder| files.map(|file| folder.join(file)));
        let read = found.find_map(|file| fs::read_to_string(file).ok())?;
        Some(read.trim().parse().unwrap())
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        // What is left was said by the test.
        for leaf in self.leaves() {
            let _ = fs::remove_dir(leaf);
        }
        for folder in self.folders() {
            let removed = fs::remove_dir(&folder);
            if !std::thread::panicking() {
                removed.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            }
        }
    }
}

/// Writes a bundle as the CRI does, whose cgroup is the pod's.
fn bundle(node: &Node, id: &str, pod: &PodCgroup) -> PathBuf {
    bundle_in(node, id, &format!("/{}/{id}", pod.name))
}

fn bundle_in(node: &Node, id: &str, cgroups_path: &str) -> PathBuf {
    let bundle = node.bundle(id, "pod");
    let config = bundle.join("config.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    if id != "pod" {
        document["process"]["args"] = json!(["/bin/sleep", "1000"]);
    }
    document["linux"]["cgroupsPath"] = json!(cgroups_path);
    fs::write(config, document.to_string()).unwrap();
    bundle
}

/// What containerd passes on of a handler's options.
fn options(text: &str) -> Vec<u8> {
    const CONFIG_BODY: u32 = 3;
    let mut value = Vec::new();
    let mut output = CodedOutputStream::vec(&mut value);
    output.write_bytes(CONFIG_BODY, text.as_bytes()).unwrap();
    output.flush().unwrap();
    drop(output);
    let any = Any {
        type_url: "runtimeoptions.v1.Options".into(),
        value,
        ..Any::default()
    };
    any.write_to_bytes().unwrap()
}

/// A pod with a container, and the pids of its monitor and of its init.
async fn pod(node: &Node, cgroup: &PodCgroup) -> (Shim, u32, u32) {
    let sandbox = bundle(node, "pod", cgroup);
    let shim = Shim::connect(&node.start("pod")).await;
    shim.create("pod", &sandbox).await.unwrap();
    shim.create("web", &bundle(node, "web", cgroup))
        .await
        .unwrap();
    let request = StateRequest {
        id: "web".into(),
        ..Default::default()
    };
    let state = shim.task.state(context::with_timeout(0), &request).await;
    let init = state.unwrap().pid;
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    (shim, parent.unwrap().trim().parse().unwrap(), init)
}

fn in_pod() -> Node {
    Node::new().env("REAPER_MONITOR_CGROUP", "pod")
}

/// What containerd runs when it has lost a shim.
fn delete(node: &Node, id: &str) {
    let bundle = node.path().join("bundles").join(id);
    let args = ["-bundle", bundle.to_str().unwrap(), "delete"];
    let output = node.command(id, &args).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Whether this process, and so the shim, has `CAP_SYS_RESOURCE`.
fn may_lower_oom_score() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(effective.unwrap().trim(), 16).unwrap() & (1 << 24) != 0
}

/// Waits until a process that was seen has ended.
fn ended(pid: u32) {
    let Ok(identity) = procfs::identify(pid) else {
        return;
    };
    if let Ok(process) = procfs::open_pidfd(&identity) {
        let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::from(20_000_u16)), Ok(1));
    }
}

#[tokio::test]
async fn shim_and_monitors_are_in_a_cgroup_of_their_own_in_the_pods() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    assert!(cgroup.memory().is_none_or(|bytes| bytes == 0));
    let sandbox = bundle(&node, "pod", &cgroup);
    let alone = Shim::connect(&node.start("pod")).await;
    alone.create("pod", &sandbox).await.unwrap();
    // It has no process but the shim.
    assert!(cgroup.memory().is_none_or(|bytes| bytes > 100_000));
    alone.remove("pod").await;
    alone.shutdown().await;
    alone.ended();
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);

    let (shim, monitor, init) = pod(&node, &cgroup).await;
    let all = cgroup.roots.len();
    assert_eq!(cgroup.leaves().len(), all);
    assert_eq!((cgroup.with(shim.pid), cgroup.with(monitor)), (all, all));
    assert_eq!(cgroup.with(init), 0, "a workload has a cgroup of its own");
    let adjustment = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    for pid in [shim.pid, monitor]
        .into_iter()
        .filter(|_| may_lower_oom_score())
    {
        assert_eq!(adjustment(pid).trim(), "-999", "the pod's limit spares it");
    }
    shim.remove("web").await;
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn shim_and_monitors_stay_where_they_were_started_by_default() {
    let node = Node::new();
    let cgroup = PodCgroup::new(&node);
    let (shim, monitor, init) = pod(&node, &cgroup).await;
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);
    let cgroups = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    for pid in [shim.pid, monitor] {
        assert_eq!(cgroups(&pid.to_string()), cgroups("self"));
    }
    assert_ne!(cgroups(&init.to_string()), cgroups("self"));
    shim.remove("web").await;
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
}

#[tokio::test]
async fn options_of_the_handler_win_over_the_nodes_configuration() {
    for (options, expected) in [
        ("monitor_cgroup = \"pod\"", true),
        ("monitor_cgroup = \"node\"", false),
    ]
    .map(|(text, expected)| (options(text), expected))
    {
        let other = if expected { "node" } else { "pod" };
        let node = Node::new().env("REAPER_MONITOR_CGROUP", other);
        let cgroup = PodCgroup::new(&node);
        let sandbox = bundle(&node, "pod", &cgroup);
        let output = node.start_with_input("pod", &options);
        assert!(output.status.success(), "{output:?}");
        let shim = Shim::connect(&String::from_utf8(output.stdout).unwrap()).await;
        shim.create("pod", &sandbox).await.unwrap();
        assert_eq!(cgroup.with(shim.pid) > 0, expected);
        shim.remove("pod").await;
        shim.shutdown().await;
        shim.ended();
    }
}

#[tokio::test]
async fn cgroup_of_a_killed_shim_is_removed_with_its_last_container() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    let (shim, monitor, init) = pod(&node, &cgroup).await;
    shim.signal(Signal::SIGKILL);
    shim.ended();
    let all = cgroup.roots.len();
    assert_eq!(cgroup.with(monitor), all, "the workload runs on");
    // The sandbox has no process but the shim, so the monitor is the last one.
    delete(&node, "pod");
    assert_eq!(cgroup.with(monitor), all);
    delete(&node, "web");
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);
    ended(init);

    // The monitor is killed, too.
    let (shim, monitor, init) = pod(&node, &cgroup).await;
    for pid in [shim.pid, monitor] {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }
    shim.ended();
    delete(&node, "web");
    delete(&node, "pod");
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);
    ended(init);
}

#[tokio::test]
async fn cgroup_of_a_shim_that_leaves_containers_is_removed_with_the_last() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    let (shim, _, init) = pod(&node, &cgroup).await;
    shim.signal(Signal::SIGTERM);
    shim.kill("web", 9).await;
    shim.ended();
    ended(init);
    delete(&node, "web");
    delete(&node, "pod");
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn limit_of_a_pod_takes_a_workload_and_not_its_monitor() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    let (shim, monitor, _) = pod(&node, &cgroup).await;
    let files = ["memory.limit_in_bytes", "memory.max"];
    let mut limits = cgroup
        .folders()
        .flat_map(|folder| files.map(|file| folder.join(file)));
    let limit = limits.find(|file| file.exists());
    if let (Some(limit), true) = (limit, may_lower_oom_score()) {
        fs::write(limit, (96 << 20).to_string()).unwrap();
        // Without a newline tail keeps all of it.
        let eater = "head -c 300000000 /dev/zero | tail > /dev/null; exit $?";
        let bundle = bundle(&node, "eater", &cgroup);
        let config = bundle.join("config.json");
        let text = fs::read_to_string(&config).unwrap();
        let mut document: Value = serde_json::from_str(&text).unwrap();
        document["process"]["args"] = json!(["/bin/sh", "-c", eater]);
        fs::write(config, document.to_string()).unwrap();
        shim.create("eater", &bundle).await.unwrap();
        assert_eq!(shim.wait("eater").await, 137);
        let identity = procfs::identify(monitor).unwrap();
        assert!(procfs::is_alive(&identity));
        shim.remove_stopped("eater").await;
    } else {
        eprintln!("not tried: no controller of memory, or no CAP_SYS_RESOURCE");
    }
    shim.remove("web").await;
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
}

/// What a hook or a logger has left would keep the cgroup, and be killed with the pod's.
#[tokio::test]
async fn what_is_left_in_the_cgroup_goes_where_the_shim_came_from() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    let (shim, ..) = pod(&node, &cgroup).await;
    let mut daemon = std::process::Command::new("/bin/sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    for leaf in cgroup.leaves() {
        fs::write(leaf.join("cgroup.procs"), daemon.id().to_string()).unwrap();
    }
    shim.remove("web").await;
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);
    let cgroups = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroups(&daemon.id().to_string()), cgroups("self"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// An earlier shim waits for what it has left, and then moves all out of its cgroup.
#[tokio::test]
async fn shim_that_is_started_while_an_earlier_one_ends_stays_in_the_pods_cgroup() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    let sandbox = bundle(&node, "pod", &cgroup);
    let earlier = Shim::connect(&node.start("pod")).await;
    earlier.create("pod", &sandbox).await.unwrap();
    let mut daemon = std::process::Command::new("/bin/sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    for leaf in cgroup.leaves() {
        fs::write(leaf.join("cgroup.procs"), daemon.id().to_string()).unwrap();
    }
    earlier.remove("pod").await;
    earlier.shutdown().await;
    let later = Shim::connect(&node.start("pod")).await;
    later.create("pod", &sandbox).await.unwrap();
    earlier.ended();
    let all = cgroup.roots.len();
    assert_eq!((cgroup.with(later.pid), cgroup.leaves().len()), (all, all));
    // Nor does the deletion of what the earlier one has left behind.
    bundle(&node, "gone", &cgroup);
    delete(&node, "gone");
    assert_eq!(cgroup.with(later.pid), all);
    later.remove("pod").await;
    later.shutdown().await;
    later.ended();
    assert_eq!(cgroup.leaves(), [] as [PathBuf; 0]);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[tokio::test]
async fn bundle_without_a_pods_cgroup_is_a_warning() {
    let node = in_pod();
    let mut log = node.log("pod");
    let shim = node.pod("pod").await;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    assert!(line.contains("stays in containerd's cgroup"), "{line}");
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
}

#[test]
fn pods_cgroup_is_refused_where_cgroups_are_off() {
    let node = in_pod().env("REAPER_CGROUPS", "off");
    let cgroup = PodCgroup::new(&node);
    bundle(&node, "pod", &cgroup);
    let output = node.command("pod", &["start"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("cgroups is \"off\""),
        "{said}"
    );
    assert!(
        !Path::new(&node.root().join("ns/.s"))
            .read_dir()
            .is_ok_and(|mut left| left.next().is_some())
    );
}

#[tokio::test]
async fn hierarchy_that_refuses_is_named_and_nothing_is_left() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    let sandbox = bundle(&node, "pod", &cgroup);
    // A cgroup that no process may be put into: a file with that name.
    let config = sandbox.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let wrong = format!("/{}/cgroup.procs/pod", cgroup.name);
    let text = text.replace(&format!("/{}/pod", cgroup.name), &wrong);
    fs::write(config, text).unwrap();
    let output = node.command("pod", &["start"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let named = said.contains("monitor_cgroup") && said.contains("cgroup.procs/reaper-shim-");
    assert!(!output.status.success() && named, "{said}");
    assert_eq!(node.daemons(), [] as [u32; 0]);
}

/// In how many hierarchies a process is in a scope of that slice for shims.
fn scopes_of(pid: u32, slice: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let is_in = |line: &&str| {
        let path = line.splitn(3, ':').nth(2).unwrap();
        path.starts_with(&format!("/{slice}/reaper-shim-")) && path.ends_with(".scope")
    };
    text.lines().filter(is_in).count()
}

/// The cgroup of a process in the hierarchy of each of `roots`.
fn cgroups_of(pid: u32, roots: &[PathBuf]) -> Vec<PathBuf> {
    let is_in = |folder: &PathBuf| {
        let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.lines().any(|line| line == pid.to_string())
    };
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let paths = text.lines().map(|line| line.splitn(3, ':').nth(2).unwrap());
    let paths: Vec<&str> = paths.map(|path| path.trim_start_matches('/')).collect();
    let found = |root: &PathBuf| {
        let folders = paths.iter().map(|path| root.join(path));
        folders.into_iter().find(is_in)
    };
    roots.iter().filter_map(found).collect()
}

#[tokio::test]
async fn in_a_slice_of_systemd_it_is_a_scope() {
    if !Path::new("/run/systemd/private").exists() {
        eprintln!("not tried: systemd does not run");
        return;
    }
    let node = in_pod();
    let slice = format!("reapertest{}.slice", std::process::id());
    let path = |id: &str| format!("{slice}:reaper:{id}");
    let found = Hierarchies::find().unwrap();
    let roots = found.v2.iter().map(|v2| v2.root().to_owned());
    let roots: Vec<_> = roots
        .chain(found.v1.iter().map(|v1| v1.root().to_owned()))
        .collect();
    for is_killed in [false, true] {
        let sandbox = bundle_in(&node, "pod", &path("pod"));
        let shim = Shim::connect(&node.start("pod")).await;
        shim.create("pod", &sandbox).await.unwrap();
        assert_eq!(scopes_of(shim.pid, &slice), roots.len());
        // What a hook has started, which systemd would end with the scope.
        let mut daemon = std::process::Command::new("/bin/sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        for scope in cgroups_of(shim.pid, &roots) {
            fs::write(scope.join("cgroup.procs"), daemon.id().to_string()).unwrap();
        }
        assert_eq!(scopes_of(daemon.id(), &slice), roots.len());
        if is_killed {
            shim.signal(Signal::SIGKILL);
            shim.ended();
            delete(&node, "pod");
        } else {
            shim.remove("pod").await;
            shim.shutdown().await;
            shim.ended();
        }
        // systemd removes a scope some time after its last process has left. This waits for that.
        let mut stop = std::process::Command::new("systemctl");
        assert!(stop.args(["stop", &slice]).status().unwrap().success());
        for root in &roots {
            assert!(!root.join(&slice).exists(), "{}", root.display());
        }
        assert!(daemon.try_wait().unwrap().is_none(), "it was moved out");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}

/// The kubelet's `podPidsLimit`.
#[tokio::test]
async fn exit_arrives_at_the_pods_limit_of_pids() {
    let node = in_pod();
    let cgroup = PodCgroup::new(&node);
    let (shim, _, init) = pod(&node, &cgroup).await;
    let file = |name| cgroup.folders().map(move |folder| folder.join(name));
    let Some(limit) = file("pids.max").find(|file| file.exists()) else {
        eprintln!("not tried: no controller of pids");
        for id in ["web", "pod"] {
            shim.remove(id).await;
        }
        return;
    };
    // A shim that has nothing to do ends the threads that it does not keep.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    // Less than there are: none can be added, also when one has ended.
    fs::write(&limit, "1").unwrap();
    let init = nix::unistd::Pid::from_raw(init.cast_signed());
    nix::sys::signal::kill(init, Signal::SIGKILL).unwrap();
    let request = WaitRequest {
        id: "web".into(),
        ..Default::default()
    };
    let waited = shim
        .task
        .wait(context::with_timeout(20_000_000_000), &request);
    assert_eq!(waited.await.unwrap().exit_status, 137);
    fs::write(&limit, "max").unwrap();
    shim.remove_stopped("web").await;
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
}
