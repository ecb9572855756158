//! What a pod costs its node beside its commands, held against the `overhead` of the runtime classes.

use std::{fs, path::PathBuf};

use reaper_tests::{
    Node, config::IN_POD, containerd::is_yardstick, cri::container, leftovers::hierarchies,
    manifest::read, on_each, runtime::until,
};

use crate::{chart::values, folder};

/// The memory that the kernel charges to the cgroup of a pod's shim and monitors: their own, pages of files that they were
/// the first to read, and the kernel's for them.
fn charged(node: &Node, pod: &str) -> u64 {
    let below = format!("{}/{pod}", node.marker());
    let folders = hierarchies().into_iter().flat_map(|hierarchy| {
        let entries = fs::read_dir(hierarchy.join(&below)).into_iter().flatten();
        entries.flatten().map(|entry| entry.path())
    });
    let is_of_shim = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("reaper-shim-")
    };
    let files = ["memory.current", "memory.usage_in_bytes"];
    let mut figures = folders
        .filter(is_of_shim)
        .flat_map(|path| files.map(|file| path.join(file)));
    let figure = figures.find_map(|file| fs::read_to_string(file).ok());
    figure
        .expect("a controller of memory")
        .trim()
        .parse()
        .expect("a number")
}

#[test]
fn the_overhead_of_the_classes_is_what_a_pods_shim_and_monitors_are_charged() {
    let mut overheads: Vec<_> = read(&folder().join("runtimeclass.yaml"))
        .into_iter()
        .map(|class| class["overhead"].clone())
        .collect();
    overheads.push(values()["overhead"].clone());
    let memory = |overhead: &serde_json::Value| {
        let text = overhead["podFixed"]["memory"]
            .as_str()
            .expect("memory")
            .to_owned();
        text.strip_suffix("Mi")
            .expect("in Mi")
            .parse::<u64>()
            .expect("a number")
            << 20
    };
    let granted = memory(&overheads[0]);
    assert!(overheads.iter().all(|overhead| memory(overhead) == granted));
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let mut config = node.pod_config("cost");
        let linux = config.linux.as_mut().expect("a pod of Linux");
        linux.cgroup_parent = format!("{}/cost", linux.cgroup_parent);
        let cgroup = linux.cgroup_parent.trim_start_matches('/').to_owned();
        for hierarchy in hierarchies() {
            fs::create_dir_all(hierarchy.join(&cgroup)).expect("make a pod's cgroup");
        }
        let pod = node.run_pod_by(IN_POD, config).expect("run a pod");
        let mut figures = Vec::new();
        for number in 0..4 {
            pod.start(&container(&format!("c{number}"), &["/bin/sleep", "1051"]));
            figures.push(charged(node, "cost"));
        }
        eprintln!("charged with 1 to 4 containers: {figures:?} bytes");
        assert!(figures[3] <= granted, "{figures:?} bytes of {granted}");
        // Nor is it many times what is used: the scheduler keeps that room free.
        assert!(granted <= 4 * figures[0], "{figures:?} bytes of {granted}");
        pod.stop();
        pod.remove();
        for hierarchy in hierarchies() {
            let folder = hierarchy.join(&cgroup);
            until("the pod's cgroup is empty", || fs::remove_dir(&folder).ok());
        }
    });
}
