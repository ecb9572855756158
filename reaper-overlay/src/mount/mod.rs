//! Mounting, in the namespace of the calling process.

pub use crate::mount::mirror::{BundleMirror, RuntimeRoot};
pub use {
    crate::mount::attributes::make_read_only, crate::mount::rootfs::mount_rootfs,
    crate::mount::rootfs::unmount_rootfs,
};

pub(crate) mod attributes;
pub(crate) mod bind;
pub(crate) mod denied;
pub(crate) mod flags;
pub(crate) mod image;
pub(crate) mod interface;
pub(crate) mod mask;
pub(crate) mod mirror;
pub(crate) mod new_root;
pub(crate) mod overlayfs;
pub(crate) mod own_trees;
pub(crate) mod pivot;
pub(crate) mod restrict;
pub(crate) mod rootfs;
