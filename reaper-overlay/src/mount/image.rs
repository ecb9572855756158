//! The root of a container's image, mounted where it is needed and nowhere else.

use std::{
    ffi::{CString, OsString},
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::CWD,
    mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_change, open_tree},
};

use super::{overlayfs::escape, rootfs::mount_rootfs};
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
            root: request.rootfs.clone().ok_or(Error::ImageMissing)?,
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

    /// Mounts it on its root, in the calling process's mount namespace, which has to be a
    /// copy that no other process is in.
    pub(crate) fn mount(&self) -> Result<(), Error> {
        mount_rootfs(&self.mounts, &self.root)
    }

    /// Shows its root, which is mounted, as an overlay of its own on `at`, where it lies on the filesystem
    /// of the host's root: overlay refuses a lower layer that lies inside another one (`ELOOP`), and
    /// looks at the filesystem, not at mounts. `empty` is an empty directory, the second layer that
    /// an overlay without an upper one has to have.
    pub(crate) fn set_apart(&self, at: &Path, empty: &Path) -> Result<Self, Error> {
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        // What is wrong with one that is missing is said when it is mounted.
        let image = device(&self.root);
        if image.is_none() || image != device(Path::new("/")) {
            return Ok(self.clone());
        }
        let mut layers = OsString::from("lowerdir=");
        layers.push(escape(self.root.as_os_str()));
        layers.push(":");
        layers.push(escape(empty.as_os_str()));
        let layers = CString::new(layers.into_vec()).map_err(io::Error::from);
        let layers = layers.context("name", &self.root)?;
        mount(
            "reaper",
            at,
            "overlay",
            MountFlags::RDONLY,
            layers.as_c_str(),
        )
        .context("set apart from the host's root the image", &self.root)?;
        Ok(self.at(at.to_owned()))
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
