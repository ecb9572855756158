//! The image of an ordinary user's container: a directory that has its content.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::plan::{Part, PartKind};
use crate::{
    contract::{Context, Error},
    linux::mountinfo::{self, MountInfo},
    mount::image::Image,
};

/// The image to show beneath the host's root, without root: a directory on which nothing is mounted.
pub(crate) fn without_mounts(image: &Image) -> Result<Image, Error> {
    let root = image.root.canonicalize().context("find", &image.root)?;
    let is_below =
        |mount: &&MountInfo| mount.mount_point != root && mount.mount_point.starts_with(&root);
    match mountinfo::read()?.iter().find(is_below) {
        Some(mount) => Err(Error::NeedsRoot {
            what: format!(
                "the use of the image {} beneath, with what is mounted on {},",
                root.display(),
                mount.mount_point.display()
            ),
        }),
        None => Ok(image.at(root)),
    }
}

/// What of the image whose root is `root` belongs beneath `part`.
pub(crate) fn beneath(root: &Path, part: &Part) -> Option<PathBuf> {
    let dir = inside(root, &part.path)?;
    // Overlay refuses a layer that lies inside another one.
    let overlaps = part.kind == PartKind::Overlay && dir.starts_with(&part.path);
    (!overlaps).then_some(dir)
}

/// Whether something of the image whose root is `root` cannot be shown beneath `part`.
pub(crate) fn is_missing(root: &Path, part: &Part) -> bool {
    let has_entries =
        |dir: PathBuf| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    part.kind == PartKind::Overlay
        && beneath(root, part).is_none()
        && inside(root, &part.path).is_some_and(has_entries)
}

/// The directory of the image at `path`, if it has one there that the user may look into.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut dir = root.to_owned();
    for part in path.components() {
        if let Component::Normal(name) = part {
            dir.push(name);
            let found = fs::symlink_metadata(&dir).ok()?;
            if !found.is_dir() {
                return None;
            }
        }
    }
    access(&dir, Access::READ_OK | Access::EXEC_OK).ok()?;
    Some(dir)
}
