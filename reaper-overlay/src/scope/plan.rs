//! What a view is made of: the types that both planners return and that [`super::assemble`] mounts.
//!
//! Root lays one overlay over each filesystem of the host. In a user namespace the kernel refuses
//! an overlay over a directory below which something else is mounted, and `/` always is one: there
//! a view is put together of many overlays around the mounts. Both are a list of parts.

use std::path::PathBuf;

use rustix::mount::MountAttrFlags;

use crate::{
    contract::user::Privilege,
    mount::mask::Mask,
    store::{
        layer_table::{Layer, Table},
        paths::ScopePaths,
    },
};

/// What a view is made of.
#[derive(Debug, Default)]
pub(crate) struct ViewPlan {
    /// In the order in which they are mounted, parents before children; the first is `/`.
    pub(crate) parts: Vec<Part>,
    /// Mounts below the host's trees that are unmounted in the view, children before parents.
    pub(crate) detached: Vec<PathBuf>,
    /// What no layer can hide, and a mount does.
    pub(crate) masked_paths: Vec<Mask>,
    /// Directories that are shown empty.
    pub(crate) hidden: Vec<PathBuf>,
    /// What was asked for, and cannot be shown because it lies below something hidden.
    pub(crate) missing: Vec<PathBuf>,
    /// The mounts of the host that the overlays lie on.
    pub(crate) lower: Vec<PathBuf>,
}

/// One part of a view, shown where it is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) is_dir: bool,
    pub(crate) kind: PartKind,
    /// Of the mount of the host that it is on.
    pub(crate) attributes: MountAttrFlags,
    /// What is hidden in it by a layer.
    pub(crate) masks: Vec<Mask>,
    pub(crate) layer: Option<Layer>,
    /// Directories of the image that are shown in it as well, by their paths there: the host has a symlink to it in
    /// their place.
    pub(crate) image_dirs: Vec<PathBuf>,
    /// Whether it is a part for the sake of those alone.
    pub(crate) is_for_image: bool,
}

/// What a part of the host is replaced by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartKind {
    /// An overlay over it; where the kernel refuses that, the host's, read-only.
    Overlay,
    /// An overlay over a directory with copies of these entries, and places to mount the others on.
    OverlayOverCopy(Vec<PathBuf>),
    /// The host's, read-only.
    ReadOnly,
    /// The host's as it is.
    Host,
    /// Nothing, since it lies below something hidden.
    Absent,
}

impl Part {
    pub(crate) fn new(path: PathBuf, kind: PartKind, attributes: MountAttrFlags) -> Self {
        Self {
            path,
            is_dir: true,
            kind,
            attributes,
            masks: Vec::new(),
            layer: None,
            image_dirs: Vec::new(),
            is_for_image: false,
        }
    }

    /// Whether it is planned as an overlay.
    pub(crate) fn is_overlay(&self) -> bool {
        matches!(self.kind, PartKind::Overlay | PartKind::OverlayOverCopy(_))
    }
}

impl ViewPlan {
    /// Assigns a layer of `table` to each part that has one.
    pub(crate) fn assign_layers(
        &mut self,
        privilege: Privilege,
        paths: &ScopePaths,
        table: &mut Table,
    ) {
        for part in &mut self.parts {
            let has_layer = match privilege {
                // Each mount of the host that a scope was ever made over keeps its layer, also
                // while it is read-only or hidden.
                Privilege::Root => part.kind != PartKind::Host,
                Privilege::User => part.is_overlay(),
            };
            part.layer = has_layer.then(|| table.layer(paths, &part.path));
        }
    }
}
