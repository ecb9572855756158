//! The image of an ordinary user's container: a directory that has its content.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::plan_as_user::{Place, Shape};
use crate::{
    contract::{Context, Error},
    linux::mountinfo::MountInfo,
    mount::image::Image,
};

/// The directory to show beneath the host's root, given all mounts of the calling process.
pub(crate) fn root(image: &Image, mounts: &[MountInfo]) -> Result<PathBuf, Error> {
    let root = image.root.canonicalize().context("find", &image.root)?;
    let below =
        |mount: &&MountInfo| mount.mount_point != root && mount.mount_point.starts_with(&root);
    match mounts.iter().find(below) {
        Some(mount) => Err(Error::NeedsRoot {
            what: format!(
                "the use of the image {} beneath, with what is mounted on {},",
                root.display(),
                mount.mount_point.display()
            ),
        }),
        None => Ok(root),
    }
}

/// What of the image whose root is `root` belongs beneath `place`.
pub(crate) fn beneath(root: &Path, place: &Place) -> Option<PathBuf> {
    let dir = inside(root, &place.path)?;
    // Overlay refuses a layer that lies inside another one.
    let overlaps = place.shape == Shape::Overlay && dir.starts_with(&place.path);
    (!overlaps).then_some(dir)
}

/// Whether something of the image whose root is `root` cannot be shown beneath `place`.
pub(crate) fn is_missing(root: &Path, place: &Place) -> bool {
    let has_entries =
        |dir: PathBuf| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    place.shape == Shape::Overlay
        && beneath(root, place).is_none()
        && inside(root, &place.path).is_some_and(has_entries)
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
