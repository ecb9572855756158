//! Shims and monitors in the cgroup of their pod, by the option of a handler.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reaper_tests::{
    Node,
    config::IN_POD,
    containerd::is_yardstick,
    cri::{Pod, container, messages::UInt64Value},
    faults::{kill, monitor_of, process_named, shim_of},
    leftovers::hierarchies,
    on_each,
    procfs::Process,
    runtime::until,
};

/// A pod in a cgroup of its own, as a kubelet makes it.
fn run_pod(node: &Node, name: &str) -> (Pod, PathBuf) {
    let mut config = node.pod_config(name);
    let linux = config.linux.as_mut().expect("a pod of Linux");
    linux.cgroup_parent = format!("{}/{name}", linux.cgroup_parent);
    let relative = PathBuf::from(linux.cgroup_parent.trim_start_matches('/'));
    for hierarchy in hierarchies() {
        fs::create_dir_all(hierarchy.join(&relative)).expect("make a pod's cgroup");
    }
    let pod = node.run_pod_by(IN_POD, config);
    let pod = pod.unwrap_or_else(|status| panic!("run pod {name}: {status}"));
    (pod, relative)
}

/// Removes the pod, and its cgroup as a kubelet does: there may be nothing in it.
fn remove_pod(pod: &Pod, cgroup: &Path) {
    pod.stop();
    pod.remove();
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(cgroup);
        until("the pod's cgroup is empty", || fs::remove_dir(&folder).ok());
    }
}

/// In how many hierarchies the process is in a cgroup of a shim in the pod's.
fn places(process: &Process, pod: &Path) -> usize {
    let prefix = format!("/{}/reaper-shim-", pod.display());
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).expect("cgroups");
    let is_in = |line: &&str| {
        line.splitn(3, ':')
            .nth(2)
            .is_some_and(|path| path.starts_with(&prefix))
    };
    text.lines().filter(is_in).count()
}

fn working_set(pod: &Pod) -> u64 {
    let value = |value: UInt64Value| value.value;
    pod.stats()
        .and_then(|linux| linux.memory)
        .and_then(|memory| memory.working_set_bytes)
        .map_or(0, value)
}

#[test]
fn figures_of_a_pod_include_its_shim_and_monitors() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let (pod, cgroup) = run_pod(node, "charged");
        // The sandbox has no process but the shim.
        assert!(working_set(&pod) > 100_000);
        let sleeper = pod.start(&container("sleeper", &["/bin/sleep", "1041"]));
        let init = process_named("/bin/sleep 1041");
        let (shim, monitor) = (shim_of(init.pid), monitor_of(init.pid));
        let all = hierarchies().len();
        assert_eq!(
            (places(&shim, &cgroup), places(&monitor, &cgroup)),
            (all, all)
        );
        assert_eq!(places(&init, &cgroup), 0);
        node.cri().stop(&sleeper, 0).expect("kill it");
        remove_pod(&pod, &cgroup);
    });
}

#[test]
fn nothing_is_left_in_the_cgroup_of_a_pod_whose_shim_was_killed() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let (pod, cgroup) = run_pod(node, "struck");
        let struck = pod.start(&container("struck", &["/bin/sleep", "1042"]));
        let init = process_named("/bin/sleep 1042");
        let monitor = monitor_of(init.pid);
        assert!(places(&monitor, &cgroup) > 0);
        kill(&shim_of(init.pid));
        node.cri().exited(&struck);
        remove_pod(&pod, &cgroup);
        assert!(!monitor.is_alive());
    });
}
