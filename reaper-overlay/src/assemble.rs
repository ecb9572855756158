//! Putting the mount namespace of a scope together. All of it runs in a helper process.

use std::{
    fs, io, iter,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};
use rustix::{
    fs::{CWD, Mode, OFlags, open},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
        OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
        mount_change, mount_move, move_mount, open_tree, unmount,
    },
    process::{chdir, chroot, fchdir, pivot_root},
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Scope,
    error::Context,
    image::Image,
    layering::Layering,
    layers::Layer,
    masks::{How, Mask},
    mountinfo,
    overlayfs::{Interface, Overlay},
    plan::{HOST_TREES, Plan, Submount, is_below},
    sys::{self, MountAttr},
};

/// All that is needed to assemble a scope, decided before the fork.
pub(crate) struct Recipe {
    pub(crate) plan: Plan,
    pub(crate) root: Placed,
    /// For each of the plan's submounts, in the same order.
    pub(crate) layers: Vec<Placed>,
    /// Masks that lie on the host's own trees, where there is no layer to hide them in.
    pub(crate) covers: Vec<Mask>,
    /// The image's root, to show beneath the host's.
    pub(crate) image: Option<Image>,
    /// The directory to assemble on.
    pub(crate) at: PathBuf,
    pub(crate) persistent: bool,
    pub(crate) interface: Interface,
    /// The mounts that need not be protected where that cannot be done.
    pub(crate) unprotected: Vec<PathBuf>,
}

/// A layer whose place is decided.
pub(crate) struct Placed {
    pub(crate) layer: Layer,
    /// What its mask layer hides. Empty if it has none.
    pub(crate) masks: Vec<Mask>,
}

/// What came out of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Escaped as in mountinfo, as are the others.
    pub(crate) read_only: Vec<String>,
    /// Writable, since they could not be protected and need not be.
    pub(crate) unprotected: Vec<String>,
    /// Not in the view, since they could not even be shown and need not be.
    pub(crate) missing: Vec<String>,
    /// Without what the image has there, since the image itself lies there.
    pub(crate) without_image: Vec<String>,
    pub(crate) locked: bool,
}

impl Outcome {
    /// What people should know of it.
    pub(crate) fn warnings(&self, scope: &Scope) -> Vec<String> {
        let kinds = [
            (
                &self.read_only,
                "read-only, since there can be no overlay over them",
            ),
            (
                &self.unprotected,
                "not protected: what is written there reaches the node",
            ),
            (&self.missing, "not in the view"),
            (
                &self.without_image,
                "without what the image has there, since the image lies there itself",
            ),
        ];
        let mut warnings: Vec<String> = kinds
            .into_iter()
            .filter(|(paths, _)| !paths.is_empty())
            .map(|(paths, how)| format!("overlay {scope}: {how}: {}", paths.join(", ")))
            .collect();
        if !self.locked {
            warnings.push(format!(
                "overlay {scope}: its mounts are not locked, since user namespaces are forbidden"
            ));
        }
        warnings
    }
}

/// What stands for a mount of the host in the view.
enum Stand {
    Overlay,
    ReadOnly,
    Writable,
    Nothing,
}

impl Recipe {
    /// Moves the calling process into a new mount namespace that shows the scope.
    pub(crate) fn assemble(&self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let mut layers = Layering::begin(iter::once(&self.root).chain(&self.layers))?;
        let outside = sys::mount_namespace_id().ok();
        unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts for", &self.at)?;
        // Nothing that happens here may reach the host; what the host mounts below its own trees
        // shall arrive.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", downstream).context("make a slave of", "/")?;
        if let Some(image) = &self.image {
            image.mount()?;
        }
        layers = layers.next()?;
        let image = self.image.as_ref().map(|image| image.root.as_path());
        self.overlay(&self.root, MountAttrFlags::empty(), image)
            .mount(self.interface, CWD, &self.at)
            .context("mount the overlay over", "/")?;
        let root = open(
            &self.at,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("open", &self.at)?;
        let view = View { root: root.as_fd() };
        let (trees, shown) = self.plan.host.split_at(HOST_TREES.len());
        for tree in trees {
            // A symlink is followed by lookups in the view itself.
            if fs::symlink_metadata(tree).is_ok_and(|metadata| !metadata.is_symlink()) {
                view.bind(tree, true).context("bind", tree)?;
            }
        }
        let hiding = self.hiding();
        let is_hidden = |path: &Path| hiding.iter().any(|mask| is_below(path, mask));
        for (submount, placed) in self.plan.submounts.iter().zip(&self.layers) {
            layers = layers.next()?;
            if is_hidden(&submount.path) {
                continue;
            }
            let name = mountinfo::escape(submount.path.as_os_str());
            match self.protect(view, submount, placed)? {
                Stand::Overlay => {}
                Stand::ReadOnly => outcome.read_only.push(name),
                Stand::Writable => outcome.unprotected.push(name),
                Stand::Nothing => outcome.missing.push(name),
            }
        }
        // On the mounts that they may lie in.
        for path in shown {
            if is_hidden(path) {
                outcome.missing.push(mountinfo::escape(path.as_os_str()));
            } else {
                view.bind(path, true).context("bind", path)?;
            }
        }
        for path in &self.plan.detached {
            view.detach(path)?;
        }
        for mask in &self.covers {
            view.cover(mask)?;
        }
        enter(&root, &self.at)?;
        outcome.locked = lock_mounts();
        make_bindable(outside)?;
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        mount_change("/", shared).context("share within the scope", "/")?;
        Ok(outcome)
    }

    /// What hides a place where something would be mounted.
    fn hiding(&self) -> Vec<&Path> {
        let masks = self.layers.iter().flat_map(|layer| &layer.masks);
        masks
            .chain(&self.root.masks)
            .map(|mask| mask.path.as_path())
            .collect()
    }

    /// Mounts what stands for one mount of the host.
    fn protect(&self, view: View<'_>, mount: &Submount, layer: &Placed) -> Result<Stand, Error> {
        if mount.overlay {
            let overlay = self.overlay(layer, mount.attributes, None);
            match overlay.mount(self.interface, view.root, relative(&mount.path)) {
                Ok(()) => return Ok(Stand::Overlay),
                Err(error) => tracing::debug!(
                    "no overlay over {} ({}): {error}",
                    mount.path.display(),
                    mount.fs_type
                ),
            }
        }
        let stand = match view.bind_read_only(&mount.path) {
            Ok(()) => Stand::ReadOnly,
            Err(_) if self.unprotected.contains(&mount.path) => {
                if view.bind(&mount.path, false).is_err() {
                    return Ok(Stand::Nothing);
                }
                Stand::Writable
            }
            Err(source) => {
                let path = mount.path.clone();
                return Err(Error::Unprotected { path, source });
            }
        };
        for mask in &layer.masks {
            view.cover(mask)?;
        }
        Ok(stand)
    }

    fn overlay(
        &self,
        placed: &Placed,
        attributes: MountAttrFlags,
        image: Option<&Path>,
    ) -> Overlay {
        let mut lower = Vec::new();
        if !placed.masks.is_empty() {
            lower.push(placed.layer.live_mask.clone());
        }
        lower.push(placed.layer.mount.clone());
        lower.extend(image.map(Path::to_owned));
        Overlay {
            lower,
            upper: placed.layer.upper.clone(),
            work: placed.layer.work.clone(),
            persistent: self.persistent,
            userxattr: false,
            attributes,
        }
    }
}

/// The view that is being assembled.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) root: BorrowedFd<'a>,
}

impl View<'_> {
    pub(crate) fn place(self, tree: OwnedFd, path: &Path) -> rustix::io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree, "", self.root, relative(path), flags)
    }

    pub(crate) fn bind(self, path: &Path, recursive: bool) -> rustix::io::Result<()> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        self.place(open_tree(CWD, path, flags)?, path)
    }

    fn bind_read_only(self, path: &Path) -> io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags)?;
        let read_only = MountAttr {
            set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(),
            propagation: nix::libc::MS_PRIVATE,
            ..MountAttr::default()
        };
        match sys::mount_setattr(tree.as_fd(), false, read_only) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOSYS) => {
                self.place(tree, path)?;
                self.remount_read_only(path)
            }
            other => {
                other?;
                Ok(self.place(tree, path)?)
            }
        }
    }

    fn remount_read_only(self, path: &Path) -> io::Result<()> {
        use rustix::mount::{MountFlags, mount_remount};
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        Ok(mount_remount(self.path(path), flags, c"")?)
    }

    /// Takes away what is mounted on `path`. It may have gone by itself.
    fn detach(self, path: &Path) -> Result<(), Error> {
        match unmount(
            self.path(path),
            UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        ) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).context("take out of the view", path),
        }
    }

    /// Hides a directory behind a small filesystem, a file behind an empty one.
    pub(crate) fn cover(self, mask: &Mask) -> Result<(), Error> {
        let path = &mask.path;
        let Ok(metadata) = fs::symlink_metadata(self.path(path)) else {
            return Ok(());
        };
        if metadata.is_symlink() {
            return Ok(());
        }
        let cover = small_tmpfs(metadata.is_dir() && mask.how == How::Empty)
            .context("make a cover for", path)?;
        if metadata.is_dir() {
            return self.place(cover, path).context("cover", path);
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&cover, "file", flags, Mode::empty())
            .context("make a cover for", path)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let file = open_tree(&cover, "file", flags).context("make a cover for", path)?;
        self.place(file, path).context("cover", path)
    }

    /// A path for the calls that take no directory.
    fn path(self, path: &Path) -> PathBuf {
        use std::os::fd::AsRawFd;
        Path::new("/proc/self/fd")
            .join(self.root.as_raw_fd().to_string())
            .join(relative(path))
    }
}

pub(crate) fn small_tmpfs(open: bool) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "reaper-cover")?;
    fsconfig_set_string(context.as_fd(), "size", "64k")?;
    fsconfig_set_string(context.as_fd(), "mode", if open { "0755" } else { "0700" })?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes the assembled tree the root, and lets go of everything else: what stays mounted here
/// would be copied for every container, and keep the host's devices busy.
pub(crate) fn enter(root: &OwnedFd, at: &Path) -> Result<(), Error> {
    fchdir(root).context("change to", at)?;
    match pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH).context("let go of the host's", "/")?,
        // The root of an initramfs cannot be exchanged, only be covered.
        Err(Errno::INVAL) => {
            mount_move(".", "/").context("move to /", at)?;
            chroot(".").context("change the root to", at)?;
        }
        Err(errno) => return Err(errno).context("make the root of", at),
    }
    chdir("/").context("change to", "/")
}

/// Locks all mounts: a copy that belongs to another user namespace has its mounts locked, and so
/// has every copy of it, whoever makes it. They can then be neither unmounted, nor be made
/// writable, nor be looked behind by a bind of what they cover. Where user namespaces are
/// forbidden the scope works all the same.
fn lock_mounts() -> bool {
    match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS) {
        Ok(()) => true,
        Err(errno) => {
            tracing::debug!("the mounts of the overlay are not locked: {errno}");
            false
        }
    }
}

/// A namespace can be bound only where the number of the namespace is smaller. Linux 6.18 hands out
/// numbers from a range for each processor, so a newer one can have the smaller number; there is a
/// processor whose range goes on from `outside`'s. (The host's first namespace has the smallest
/// number of all: this concerns nodes that are containers themselves.)
fn make_bindable(outside: Option<u64>) -> Result<(), Error> {
    let Some(outside) = outside else {
        return Ok(());
    };
    let is_bindable = || sys::mount_namespace_id().map_or(true, |id| id > outside);
    for cpu in 0..CpuSet::count() {
        if is_bindable() {
            break;
        }
        let mut one = CpuSet::new();
        if one.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &one).is_ok() {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare again the mounts of", "/")?;
        }
    }
    Ok(())
}

pub(crate) fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
