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

/// The image to show beneath the host's root, without root: a directory on which nothing is
/// mounted.
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

/// Adds parts where the host has a symlink in its root in the place of a directory that `image` may have: on a
/// host with a merged /usr the image's /bin would lie behind the link /bin, and its /usr/bin alone be seen. It is
/// shown where the link leads. `is_possible` says whether an overlay may be laid over a directory of the host.
pub(crate) fn add_linked_dirs(
    parts: &mut Vec<Part>,
    image: &Image,
    is_possible: impl Fn(&Path) -> bool,
) -> Result<(), Error> {
    let root = Path::new("/");
    for entry in fs::read_dir(root).context("list", root)? {
        let link = entry.context("list", root)?.path();
        // One that is to be mounted first is looked at when it is.
        if !link.is_symlink() || image.is_there() && inside(&image.root, &link).is_none() {
            continue;
        }
        // It may lead nowhere.
        let Ok(target) = link.canonicalize() else {
            continue;
        };
        if let Some(part) = parts.iter_mut().find(|part| part.path == target) {
            part.image_dirs.push(link);
            continue;
        }
        let around = parts.iter().enumerate();
        let around = around.filter(|(_, part)| target.starts_with(&part.path));
        let around = around.max_by_key(|(_, part)| part.path.components().count());
        let Some((at, around)) = around else {
            continue;
        };
        if around.is_overlay() && target.is_dir() && is_possible(&target) {
            let mut part = Part::new(target, PartKind::Overlay, around.attributes);
            part.image_dirs.push(link);
            part.is_for_image = true;
            // Before what is mounted below it.
            parts.insert(at + 1, part);
        }
    }
    Ok(())
}

/// What of the image whose root is `root` belongs beneath `part`, the uppermost first.
pub(crate) fn beneath(root: &Path, part: &Part) -> Vec<PathBuf> {
    let dirs = std::iter::once(&part.path).chain(&part.image_dirs);
    let dirs = dirs.filter_map(|path| inside(root, path));
    // Overlay refuses a layer that lies inside another one.
    let overlaps = |dir: &PathBuf| part.kind == PartKind::Overlay && dir.starts_with(&part.path);
    dirs.filter(|dir| !overlaps(dir)).collect()
}

/// Whether the image whose root is `root` has a directory where the host has a symlink to `part`.
pub(crate) fn has_linked_dirs(root: &Path, part: &Part) -> bool {
    part.image_dirs
        .iter()
        .any(|path| inside(root, path).is_some())
}

/// Whether something of the image whose root is `root` cannot be shown beneath `part`.
pub(crate) fn is_missing(root: &Path, part: &Part) -> bool {
    let has_entries =
        |dir: PathBuf| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    part.kind == PartKind::Overlay
        && beneath(root, part).is_empty()
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
