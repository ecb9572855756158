//! What is hidden from an ordinary user's containers.
//!
//! Most of what the built-in list names is root's and cannot be read anyway. It is hidden all the
//! same: a list means the same for everybody.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::plan_as_user::{Place, Shape};
use crate::mount::mask::{How, Mask};

/// Hides `masks` in `places`, and returns those that no layer can hide. `base` is where the layers
/// are.
pub(crate) fn apply(places: &mut Vec<Place>, masks: Vec<Mask>, base: &Path) -> Vec<Mask> {
    let base = base.canonicalize().unwrap_or_else(|_| base.to_owned());
    let whole: Vec<PathBuf> = masks
        .iter()
        .filter(|mask| mask.how != How::Sanitised)
        .map(|mask| mask.path.clone())
        .collect();
    places.retain(|place| !whole.iter().any(|path| place.path.starts_with(path)));
    let mut covers = Vec::new();
    for mask in masks.into_iter().filter(is_needed) {
        let around = places
            .iter_mut()
            .filter(|place| place.path != mask.path && mask.path.starts_with(&place.path));
        let Some(place) = around.max_by_key(|place| place.path.components().count()) else {
            continue;
        };
        match &mut place.shape {
            Shape::Shell(copies) => {
                if mask.how != How::Sanitised {
                    copies.retain(|copy| *copy != mask.path);
                }
                place.masks.push(mask);
            }
            // Overlay refuses a layer that lies inside another one.
            Shape::Overlay if !base.starts_with(&place.path) && is_open(&mask, &place.path) => {
                place.masks.push(mask);
            }
            _ => covers.push(mask),
        }
    }
    covers
}

/// Whether there is something to hide from somebody who may do no more than this user.
fn is_needed(mask: &Mask) -> bool {
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
