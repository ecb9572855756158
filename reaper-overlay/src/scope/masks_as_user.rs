//! What is hidden from an ordinary user's containers.
//!
//! Most of what the built-in list names is root's and cannot be read anyway. It is hidden all the
//! same: a list means the same for everybody.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::plan::{Part, PartKind};
use crate::mount::mask::{How, Mask};

/// Hides `masks` in `parts`, and returns those that no layer can hide. `base` is where the layers
/// are.
pub(crate) fn apply(parts: &mut Vec<Part>, masks: Vec<Mask>, base: &Path) -> Vec<Mask> {
    let base = base.canonicalize().unwrap_or_else(|_| base.to_owned());
    let whole: Vec<PathBuf> = masks
        .iter()
        .filter(|mask| mask.how != How::Sanitised)
        .map(|mask| mask.path.clone())
        .collect();
    parts.retain(|part| !whole.iter().any(|path| part.path.starts_with(path)));
    let mut covers = Vec::new();
    for mask in masks.into_iter().filter(hides_something) {
        let around = parts
            .iter_mut()
            .filter(|part| part.path != mask.path && mask.path.starts_with(&part.path));
        let Some(part) = around.max_by_key(|part| part.path.components().count()) else {
            continue;
        };
        match &mut part.kind {
            PartKind::OverlayOverCopy(copies) => {
                if mask.how != How::Sanitised {
                    copies.retain(|copy| *copy != mask.path);
                }
                part.masks.push(mask);
            }
            // Overlay refuses a layer that lies inside another one.
            PartKind::Overlay if !base.starts_with(&part.path) && is_open(&mask, &part.path) => {
                part.masks.push(mask);
            }
            _ => covers.push(mask),
        }
    }
    covers
}

/// Whether there is something to hide from somebody who may do no more than this user.
fn hides_something(mask: &Mask) -> bool {
    let allows = |path: &Path, what| access(path, what).is_ok();
    let parent = mask.path.parent().unwrap_or(Path::new("/"));
    allows(parent, Access::EXEC_OK)
        && (mask.how != How::Sanitised || allows(&mask.path, Access::READ_OK))
}

/// Whether the user may list all directories between `mask` and `top`: a layer over one that is
/// closed would be the user's, and make a difference.
fn is_open(mask: &Mask, top: &Path) -> bool {
    let between = mask.path.ancestors().skip(1);
    between
        .take_while(|dir| *dir != top)
        .all(|dir| access(dir, Access::READ_OK | Access::EXEC_OK).is_ok())
}
