//! What becomes of each mount of the host in a scope.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::mount::MountAttrFlags;

use crate::{base, mountinfo::MountInfo, overlayfs};

#[cfg(test)]
mod tests;

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

/// A separate filesystem below `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submount {
    pub(crate) path: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) attributes: MountAttrFlags,
    /// Whether to try an overlay; otherwise it becomes a read-only bind at once.
    pub(crate) overlay: bool,
}

/// What a scope is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bound from the host, with everything below them: its own trees, and then what the admin
    /// shows.
    pub(crate) host: Vec<PathBuf>,
    /// Separate filesystems, parents before children.
    pub(crate) submounts: Vec<Submount>,
    /// Shown as empty directories.
    pub(crate) hidden: Vec<PathBuf>,
    /// Mounts below the host's trees that are taken out, children before parents.
    pub(crate) detached: Vec<PathBuf>,
}

impl Plan {
    /// Decides, given the mounts that can be seen (`mountinfo::visible`), what is bound from the
    /// host beyond the usual, and what is hidden beyond the usual.
    pub(crate) fn new(visible: &[&MountInfo], host: &[PathBuf], hidden: &[PathBuf]) -> Self {
        // The bases of other configurations hold the layers of their scopes.
        let bases = visible
            .iter()
            .filter(|mount| mount.source == base::SOURCE)
            .map(|mount| mount.mount_point.clone());
        let found = visible
            .iter()
            .filter_map(|mount| state_dir(&mount.mount_point));
        let mut plan = Self {
            host: HOST_TREES
                .iter()
                .map(PathBuf::from)
                .chain(host.iter().cloned())
                .collect(),
            hidden: HIDDEN
                .iter()
                .map(PathBuf::from)
                .chain(hidden.iter().cloned())
                .chain(bases)
                .chain(found)
                .collect(),
            ..Self::default()
        };
        for mount in visible {
            let path = &mount.mount_point;
            let gone = path.as_os_str().to_string_lossy().ends_with("//deleted");
            if path == Path::new("/") || gone {
                continue;
            }
            let hidden = below_any(path, &plan.hidden);
            if below_any(path, &plan.host) {
                if hidden {
                    plan.detached.push(path.clone());
                }
            } else if !hidden {
                plan.submounts.push(Submount {
                    path: path.clone(),
                    fs_type: mount.fs_type.clone(),
                    attributes: overlayfs::attributes(&mount.options),
                    overlay: !PSEUDO.contains(&mount.fs_type.as_str()),
                });
            }
        }
        plan.submounts
            .sort_by_cached_key(|mount| mount.path.components().count());
        plan.detached
            .sort_by_cached_key(|path| std::cmp::Reverse(path.components().count()));
        plan
    }
}

/// The directory of a container engine's or a kubelet's mounts that `path` lies in, wherever the
/// node's admin has put it.
fn state_dir(path: &Path) -> Option<PathBuf> {
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
