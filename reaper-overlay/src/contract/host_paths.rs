//! The host's own trees, what is hidden of them, and which filesystems have no files of their own.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The source that Reaper's own filesystems show in the mount table.
pub(crate) const SOURCE: &str = "reaper-overlay";

/// The host's own trees, and those that are bound like them.
pub(crate) fn is_host_path(path: &Path, host_paths: &[PathBuf]) -> bool {
    HOST_TREES.iter().any(|tree| path.starts_with(tree)) || below_any(path, host_paths)
}

/// The trees that are the host's own in every scope.
pub(crate) const HOST_TREES: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// Directories that hold mounts of other workloads and of those who run them. They are empty in a
/// scope, and what is mounted below them is not in it.
pub(crate) const HIDDEN: [&str; 7] = [
    "/var/lib/kubelet/pods",
    "/var/lib/kubelet/plugins/kubernetes.io",
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/containerd/io.containerd.runtime.v1.linux",
    "/run/containerd/io.containerd.grpc.v1.cri",
    "/run/containerd/io.containerd.sandbox.controller.v1.shim",
    "/var/lib/containerd/tmpmounts",
];

/// Filesystems without files of their own: nothing to keep clean, and overlay refuses most.
pub(crate) const PSEUDO: [&str; 19] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
];

/// The directory of a container engine's or a kubelet's mounts that `path` lies in, wherever the
/// node's admin has put it.
pub(crate) fn state_dir(path: &Path) -> Option<PathBuf> {
    const CONTAINERD: [&str; 4] = [
        "io.containerd.runtime.v2.task",
        "io.containerd.runtime.v1.linux",
        "io.containerd.grpc.v1.cri",
        "io.containerd.sandbox.controller.v1.shim",
    ];
    let has_name = |dir: &&Path, wanted: &dyn Fn(&str) -> bool| {
        dir.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(wanted)
    };
    let containerd = |name: &str| CONTAINERD.contains(&name);
    if let Some(dir) = path
        .ancestors()
        .skip(1)
        .find(|dir| has_name(dir, &containerd))
    {
        return Some(dir.to_owned());
    }
    // ROOT/plugins/kubernetes.io: where the kubelet stages volumes that devices are mounted for.
    let staging = |dir: &&Path| dir.ends_with("plugins/kubernetes.io");
    if let Some(dir) = path.ancestors().skip(1).find(staging) {
        return Some(dir.to_owned());
    }
    // ROOT/pods/UID/volumes/kubernetes.io~KIND/NAME
    let plugin = |name: &str| name.starts_with("kubernetes.io~");
    let plugin = path
        .ancestors()
        .skip(1)
        .find(|dir| has_name(dir, &plugin))?;
    plugin
        .ancestors()
        .nth(3)
        .filter(|dir| dir.ends_with("pods"))
        .map(Path::to_owned)
}

/// Whether no overlay lies on what is mounted on `path`: it is the host's own, or of other
/// workloads.
pub(crate) fn is_apart(path: &Path) -> bool {
    let mut trees = HOST_TREES.iter().chain(&HIDDEN);
    trees.any(|tree| is_below(path, Path::new(tree))) || state_dir(path).is_some()
}

/// Whether `path` is one of `dirs` or below one.
pub(crate) fn below_any(path: &Path, dirs: &[PathBuf]) -> bool {
    dirs.iter().any(|dir| is_below(path, dir))
}

/// Whether `path` is `dir` or below it. Both are as the table of mounts has them, so they need not
/// be taken apart as [`Path::starts_with`] does: on a node with many mounts that takes
/// milliseconds.
pub(crate) fn is_below(path: &Path, dir: &Path) -> bool {
    let dir = dir.as_os_str().as_bytes();
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    let rest = path.as_os_str().as_bytes().strip_prefix(dir);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}
