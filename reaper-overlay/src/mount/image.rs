//! The root of a container's image, mounted where it is needed and nowhere else.

use std::{os::fd::OwnedFd, path::PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::CWD,
    mount::{MountPropagationFlags, OpenTreeFlags, mount_change, open_tree},
};

use super::rootfs::mount_rootfs;
use crate::{
    contract::{Context, Error, RootfsMount, ViewRequest},
    linux::fd_passing,
};

/// The root of an image: a directory, and what is to be mounted on it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) root: PathBuf,
    mounts: Vec<RootfsMount>,
}

impl Image {
    /// The image that comes with `request`.
    pub(crate) fn of(request: &ViewRequest) -> Result<Self, Error> {
        Ok(Self {
            root: request.rootfs.clone().ok_or(Error::NoImage)?,
            mounts: request.rootfs_mounts.clone(),
        })
    }

    /// The same image, its root named by another path.
    pub(crate) fn at(&self, root: PathBuf) -> Self {
        let mounts = self.mounts.clone();
        Self { root, mounts }
    }

    /// Whether it is on the host already.
    pub(crate) fn is_there(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Mounts it on its root, in the calling process's mount namespace, which is a copy that nobody
    /// else sees.
    pub(crate) fn mount(&self) -> Result<(), Error> {
        mount_rootfs(&self.mounts, &self.root)
    }

    /// The image as a tree that is mounted nowhere. A process that is killed meanwhile leaves
    /// nothing.
    pub(crate) fn detached(&self) -> Result<OwnedFd, Error> {
        let root = &self.root;
        let (mut trees, ()) = fd_passing::from_helper("mount the image", root, 1, || {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts for", root)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).context("make private", "/")?;
            self.mount()?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let tree = open_tree(CWD, root, flags).context("open the image", root)?;
            Ok((vec![tree], ()))
        })?;
        Ok(trees.remove(0))
    }
}

/// The image that comes with `request`.
pub(crate) fn plain(request: &ViewRequest) -> Result<Image, Error> {
    let image = Image::of(request)?;
    if image.is_there() {
        return Ok(image);
    }
    Err(Error::NeedsRoot {
        what: format!("mounting the image on {}", image.root.display()),
    })
}
