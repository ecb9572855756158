//! What becomes of each mount of the host in a scope, as root: an overlay for each filesystem.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::mount::MountAttrFlags;

use super::{
    image, masks,
    plan::{Part, PartKind, ViewPlan},
    scope_options::ScopeOptions,
};
use crate::{
    contract::{
        Error,
        host_paths::{self, HIDDEN, HOST_TREES, PSEUDO, below_any, is_below, state_dir},
    },
    linux::mountinfo::{self, MountInfo},
    mount::{flags, mask::Mask},
    store::{
        base::{Base, base_of},
        mount_points::{MountPointRegistry, record},
    },
};

#[cfg(test)]
mod tests;

/// Decides what is in the view.
pub(crate) fn plan(base: &Base, options: &ScopeOptions<'_>) -> Result<ViewPlan, Error> {
    // There is nothing to hide in a directory that was made to mount volumes on, and a cover would hide
    // the mount points that are made in it.
    let own = MountPointRegistry::made_on_host(&record(&base.path, base.persistent))?;
    let base = base.path.as_path();
    let mounts = mountinfo::read()?;
    let visible = mountinfo::visible(&mounts);
    let sorted = SortedMounts::new(&visible, options.host_paths, &bases(base, &visible));
    let found = masks::find(options.masks, &sorted.hidden)?;
    let (masked_paths, masks): (Vec<Mask>, Vec<Mask>) = found
        .into_iter()
        .filter(|mask| !own.contains(&mask.path))
        .partition(|mask| below_any(&mask.path, &sorted.host));
    let is_hidden = |path: &Path| masks.iter().any(|mask| is_below(path, &mask.path));
    let host = |path: &PathBuf| Part::new(path.clone(), PartKind::Host, MountAttrFlags::empty());
    let root = PathBuf::from("/");
    let mut parts = vec![Part::new(root, PartKind::Overlay, MountAttrFlags::empty())];
    let (trees, shown) = sorted.host.split_at(HOST_TREES.len());
    // A symlink is followed by lookups in the view itself.
    let is_tree = |tree: &&PathBuf| fs::symlink_metadata(tree).is_ok_and(|it| !it.is_symlink());
    parts.extend(trees.iter().filter(is_tree).map(host));
    parts.extend(sorted.submounts.iter().map(|mount| {
        let kind = match mount.overlay {
            _ if is_hidden(&mount.path) => PartKind::Absent,
            true => PartKind::Overlay,
            false => PartKind::ReadOnly,
        };
        Part::new(mount.path.clone(), kind, mount.attributes)
    }));
    // Last, since they may lie on submounts.
    let (missing, shown): (Vec<_>, Vec<_>) = shown.iter().partition(|path| is_hidden(path));
    parts.extend(shown.into_iter().map(host));
    let layered = parts.iter().filter(|part| part.kind != PartKind::Host);
    let lower = layered.map(|part| part.path.clone()).collect();
    if let Some(image) = &options.image {
        image::add_linked_dirs(&mut parts, image, |path| !is_hidden(path))?;
    }
    assign_masks(&mut parts, masks);
    Ok(ViewPlan {
        parts,
        detached: sorted.detached,
        masked_paths,
        hidden: Vec::new(),
        missing: missing.into_iter().cloned().collect(),
        lower,
    })
}

/// The base of the scope and those of other configurations, which hold the layers of their scopes.
fn bases(own: &Path, visible: &[&MountInfo]) -> Vec<PathBuf> {
    let others = visible
        .iter()
        .filter(|mount| mount.source == host_paths::SOURCE)
        .map(|mount| base_of(&mount.mount_point));
    others.chain([own.to_owned()]).collect()
}

/// Assigns each mask to the innermost overlay that has what it hides. A mask of a mount as a whole
/// hides the directory that it is mounted on.
fn assign_masks(parts: &mut [Part], masks: Vec<Mask>) {
    for mask in masks {
        let around = parts.iter_mut().filter(|part| {
            part.kind != PartKind::Host
                && is_below(&mask.path, &part.path)
                && mask.path != part.path
        });
        if let Some(part) = around.max_by_key(|part| part.path.components().count()) {
            part.masks.push(mask);
        }
    }
}

/// A separate filesystem below `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Submount {
    path: PathBuf,
    attributes: MountAttrFlags,
    /// Whether to try an overlay; otherwise it becomes a read-only bind at once.
    overlay: bool,
}

/// The mounts of the host, sorted by what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SortedMounts {
    /// Bound from the host, with everything below them: its own trees, and then what the admin
    /// shows.
    host: Vec<PathBuf>,
    /// Separate filesystems, parents before children.
    submounts: Vec<Submount>,
    /// Shown as empty directories.
    hidden: Vec<PathBuf>,
    /// Mounts below the host's trees that are taken out, children before parents.
    detached: Vec<PathBuf>,
}

impl SortedMounts {
    /// Decides, given the mounts that can be seen (`mountinfo::visible`), what is bound from the
    /// host beyond the usual, and what is hidden beyond the usual.
    fn new(visible: &[&MountInfo], host: &[PathBuf], hidden: &[PathBuf]) -> Self {
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
                    attributes: flags::inherited(&mount.options),
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
