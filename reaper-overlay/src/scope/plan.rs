//! What becomes of each mount of the host in a scope.

use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use crate::{
    contract::host_paths::{self, HIDDEN, HOST_TREES, PSEUDO, below_any, state_dir},
    linux::mountinfo::MountInfo,
    mount::overlayfs,
};

#[cfg(test)]
mod tests;

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
            .filter(|mount| mount.source == host_paths::SOURCE)
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
