//! What a test has left behind on its node.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    time::Instant,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};

use crate::{
    containerd::{Node, SETTLE},
    procfs,
    runtime::until_within,
};

/// Panics with a list unless all of a test's processes, zombies, mounts, sockets, cgroups and
/// files are gone, or go within a few seconds.
pub fn assert_none(node: &Node) {
    let start = Instant::now();
    until_within("nothing is left behind", SETTLE * 2, || {
        let left = find(node);
        if left.is_empty() {
            return Some(());
        }
        assert!(
            start.elapsed() < SETTLE,
            "left behind:\n  {}",
            left.join("\n  ")
        );
        None
    });
}

/// What belongs to a node beside containerd.
#[derive(Debug, Clone, Default)]
pub struct Expected<'a> {
    /// Processes, whose children are of no interest either.
    pub processes: Vec<u32>,
    /// Cgroups below the node's own.
    pub cgroups: &'a [&'a str],
}

/// What is there now that was not there before the test, a line each.
pub fn find(node: &Node) -> Vec<String> {
    find_beside(node, &Expected::default())
}

/// What is there now beside what belongs to the node, a line each.
pub fn find_beside(node: &Node, expected: &Expected<'_>) -> Vec<String> {
    let mut left = processes(node, &expected.processes);
    // A scope of the overlay outlives its workloads.
    let scopes = node.dir().join("overlay");
    left.extend(
        mounts(node)
            .into_iter()
            .filter(|path| !path.starts_with(&scopes) && *path != node.network())
            .map(|path| format!("mount {}", path.display())),
    );
    // The parent that all have in common may stay, as it does with other runtimes.
    let parent = Path::new(node.marker());
    let stays = |path: &Path| {
        path.ends_with(parent)
            || expected
                .cgroups
                .iter()
                .any(|cgroup| path.ends_with(parent.join(cgroup)))
    };
    left.extend(
        cgroups(node)
            .iter()
            .filter(|path| !stays(path))
            .map(|path| format!("cgroup {}", path.display())),
    );
    left.extend(unix_sockets(node));
    for namespace in [node.marker(), "k8s.io"] {
        let bundles = entries(&node.bundles(namespace));
        left.extend(
            bundles
                .iter()
                .map(|path| format!("bundle {}", path.display())),
        );
        let states = entries(&node.state_root().join("ns").join(namespace));
        left.extend(
            states
                .iter()
                .filter(|path| !is_database(path))
                .map(|path| format!("state {}", path.display())),
        );
    }
    let mut files = Vec::new();
    collect_files(&node.state_root(), &mut files);
    files.retain(|path| !is_database(path));
    left.extend(files.iter().map(|path| format!("file {}", path.display())));
    left
}

/// Ends and removes all that is left of a node, its folder included.
pub(crate) fn clear(node: &Node) {
    end_processes(&[]);
    unmount(node);
    remove_cgroups(node);
    if env::var_os("REAPER_TEST_KEEP").is_some() {
        eprintln!("kept: {}", node.dir().display());
    } else if let Err(error) = fs::remove_dir_all(node.dir()) {
        eprintln!("remove {}: {error}", node.dir().display());
    }
}

/// Kills all processes that come from this one, but for those of `spared`.
pub(crate) fn end_processes(spared: &[u32]) {
    until_within("all of the node's processes end", SETTLE, || {
        procfs::reap_orphans(spared);
        let mut left = procfs::descendants(process::id());
        left.retain(|process| !spared.contains(&process.pid) && !spared.contains(&process.parent));
        for process in &left {
            process.signal(Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
}

/// Unmounts all that is mounted below a node's folder.
pub(crate) fn unmount(node: &Node) {
    for path in mounts(node).iter().rev() {
        if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {error}", path.display());
        }
    }
}

/// Removes a node's cgroups.
pub(crate) fn remove_cgroups(node: &Node) {
    for path in cgroups(node).iter().rev() {
        if let Err(error) = fs::remove_dir(path) {
            eprintln!("rmdir {}: {error}", path.display());
        }
    }
}

/// The processes that come from this one, but for containerd and those that are expected, with their children.
fn processes(node: &Node, expected: &[u32]) -> Vec<String> {
    let containerd = node.containerd().map(|process| process.pid);
    let known: Vec<u32> = containerd.iter().chain(expected).copied().collect();
    procfs::reap_orphans(&known);
    procfs::descendants(process::id())
        .into_iter()
        .filter(|process| !known.contains(&process.pid) && !expected.contains(&process.parent))
        .map(|process| {
            format!(
                "process {} ({}, state {}, child of {}): {}",
                process.pid,
                process.name,
                process.state,
                process.parent,
                process.command_line()
            )
        })
        .collect()
}

/// The mount points below the node's folder, outer ones first.
fn mounts(node: &Node) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(node.dir()))
        .collect()
}

/// The node's cgroups in all hierarchies, outer ones first.
fn cgroups(node: &Node) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in hierarchies() {
        collect_folders(&root, node.marker(), false, &mut found);
    }
    found
}

/// Where the hierarchies of cgroups are mounted.
pub fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let mounts = table.lines().filter_map(|line| line.split_once(" - "));
    mounts
        .filter(|(_, source)| source.starts_with("cgroup"))
        .filter_map(|(mount, _)| mount.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

/// Collects the folders below `dir` whose path has `marker` in it.
fn collect_folders(dir: &Path, marker: &str, inside: bool, found: &mut Vec<PathBuf>) {
    for path in entries(dir) {
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let inside = inside || name.contains(marker);
        if inside {
            found.push(path.clone());
        }
        collect_folders(&path, marker, inside, found);
    }
}

/// Collects all below `dir` that is no folder.
fn collect_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(dir) {
        if fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir()) {
            collect_files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Whether this is the database of a state root, which stays as the root does, or beside it.
fn is_database(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(".state.db")
}

/// The sockets that somebody listens on below the node's folder, but for containerd's own.
fn unix_sockets(node: &Node) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").expect("read the socket table");
    let own = ["grpc.sock", "ttrpc.sock", "debug.sock", "grpc.sock.ttrpc"]
        .map(|name| node.dir().join(name).display().to_string());
    table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|path| path.contains(node.marker()) && !own.iter().any(|name| name == path))
        .map(|path| format!("listening socket {path}"))
        .collect()
}

/// What a folder holds; nothing if there is none.
fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}
