//! The other names of what is hidden.
//!
//! A bind mount shows a file a second time, a hard link names it a second time. What mounts show is
//! found by comparing their roots with the path of the hidden file in its own filesystem, and hidden
//! there too. The other names of a hard link are known to no part of the kernel: to find them takes a
//! walk of the whole filesystem, which may have millions of files, for each scope that is made. Such a
//! file is named in a warning instead.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    linux::mountinfo::MountInfo,
    mount::mask::{How, Mask},
};

/// The places besides `mask.path` at which the visible `mounts` show what `mask` hides. Of a directory that is
/// hidden as a whole, also those that show only a part of it.
pub(super) fn find(mask: &Mask, mounts: &[&MountInfo]) -> Vec<PathBuf> {
    let Ok(hidden) = fs::symlink_metadata(&mask.path) else {
        return Vec::new();
    };
    let Some(around) = mount_of(&mask.path, mounts) else {
        return Vec::new();
    };
    let Some(in_filesystem) = in_filesystem(&mask.path, around) else {
        return Vec::new();
    };
    let same_filesystem = mounts.iter().filter(|mount| mount.device == around.device);
    let mut found = Vec::new();
    for mount in same_filesystem {
        if let Ok(below) = in_filesystem.strip_prefix(&mount.root) {
            let alias = join(&mount.mount_point, below);
            // Another mount may cover it there: then it is not seen.
            if fs::symlink_metadata(&alias).is_ok_and(|seen| is_same(&seen, &hidden)) {
                found.push(alias);
            }
        } else if mask.how == How::Empty && mount.root.starts_with(&in_filesystem) {
            found.push(mount.mount_point.clone());
        }
    }
    // The root cannot be hidden, and what is below the mask already is.
    found.retain(|alias| alias.parent().is_some() && !alias.starts_with(&mask.path));
    found
}

/// How many names a hidden file has besides its own that may still be seen.
pub(super) fn hard_links(mask: &Mask, masks: &[Mask]) -> u64 {
    let Some(hidden) = file(mask) else {
        return 0;
    };
    if hidden.nlink() < 2 {
        return 0;
    }
    // Bind mounts show one link at several places: two are one if they have one name in one directory.
    let mut links = Vec::new();
    for other in masks {
        let known = file(other).is_some_and(|other| is_same(&other, &hidden));
        let parent = other.path.parent().and_then(|dir| fs::metadata(dir).ok());
        if let (true, Some(parent)) = (known, parent) {
            let name = other.path.file_name().map(ToOwned::to_owned);
            links.push((parent.dev(), parent.ino(), name));
        }
    }
    links.sort();
    links.dedup();
    let known = u64::try_from(links.len()).unwrap_or(u64::MAX);
    hidden.nlink().saturating_sub(known)
}

/// What is hidden, if it is a file. The links of a directory are those of the directories in it.
fn file(mask: &Mask) -> Option<Metadata> {
    let metadata = fs::symlink_metadata(&mask.path).ok()?;
    (!metadata.is_dir()).then_some(metadata)
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The one of the visible mounts that shows `path`.
fn mount_of<'a>(path: &Path, mounts: &[&'a MountInfo]) -> Option<&'a MountInfo> {
    let shows = |mount: &&MountInfo| path.starts_with(&mount.mount_point);
    // Parents are before children.
    mounts.iter().copied().rev().find(shows)
}

/// The path of `path` in the filesystem of its mount, from that filesystem's root.
fn in_filesystem(path: &Path, mount: &MountInfo) -> Option<PathBuf> {
    let below = path.strip_prefix(&mount.mount_point).ok()?;
    Some(join(&mount.root, below))
}

/// Without a slash at the end where nothing is below, for which a file would have to be a directory.
fn join(dir: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        dir.to_owned()
    } else {
        dir.join(below)
    }
}
