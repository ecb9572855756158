//! A bundle whose root is the view, shown beside the runtime's files for a while.
//!
//! Programs that prepare a container before its own runs, OCI's hooks, look for its root where the
//! bundle says that it is, and some make that their root by pivot_root(2), which the root itself
//! refuses. They are the runtime's, with all of its rights, so nothing that they are made of may come from the
//! view: not their libraries, nor what interprets them. A volume is enough to put something there.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
        mount_change, mount_move, move_mount, open_tree, unmount,
    },
};

use crate::{
    contract::{Context, Error},
    linux::{handle::fd_link, mountinfo, resolve::in_view},
};

/// The runtime's root with all that is mounted there, for [`BundleMirror::show`].
#[derive(Debug)]
pub struct RuntimeRoot(OwnedFd);

impl RuntimeRoot {
    /// Copies the mounts of the calling process, which is not in a view yet.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn copy() -> Result<Self, Error> {
        copy_root().context("copy the mounts at", "/").map(Self)
    }
}

/// A bundle in the mount namespace of the calling process, whose root is that process's root with all
/// that is mounted there, beside a copy of the runtime's root. Nothing outside of the namespace sees it, which
/// must be a container's own.
#[derive(Debug)]
pub struct BundleMirror {
    /// What is covered, an ancestor of the bundle.
    cover: PathBuf,
    /// The copy of the runtime's root.
    runtime: OwnedFd,
    /// The bundle's root, in the view.
    root: PathBuf,
    /// The mounts that were there when the root was bound.
    mounts: HashSet<u32>,
}

impl BundleMirror {
    /// Shows a bundle at the path `bundle`, absolute and a directory below `runtime`, with this text as its
    /// `config.json`, and its root at the relative path `root`. In the view the nearest directory above
    /// `bundle` is covered that exists.
    ///
    /// # Errors
    /// The step that failed. Mounts that were made stay, as they do when this is dropped: the process
    /// is to give up its namespace.
    pub fn show(
        runtime: RuntimeRoot,
        bundle: &Path,
        config: &[u8],
        root: &Path,
    ) -> Result<Self, Error> {
        let RuntimeRoot(runtime) = runtime;
        let above = bundle.ancestors().find(|dir| dir.is_dir());
        let above = above.filter(|dir| dir.parent().is_some());
        let above = above.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let above = above.context("show in the view the bundle", bundle)?;
        let found = in_view::open(above).context("open", above)?;
        // As the table of mounts has it.
        let cover = fs::read_link(fd_link(&found)).context("resolve", above)?;
        // Before anything is mounted, which would be in it.
        let view = copy_root().context("copy the mounts at", "/")?;
        cover_by_tmpfs(&cover)?;
        let place = cover.join("runtime");
        fs::create_dir(&place).context("make", &place)?;
        attach(runtime.as_fd(), &place)?;
        // By the runtime's own links.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::IN_ROOT;
        let folder = openat2(&runtime, bundle, flags, Mode::empty(), beneath);
        let folder = folder.context("open the bundle", bundle)?;
        let folder = fs::read_link(fd_link(&folder)).context("resolve", bundle)?;
        cover_by_tmpfs(&folder)?;
        let root = folder.join(root);
        fs::create_dir_all(&root).context("make", &root)?;
        let file = folder.join("config.json");
        fs::write(&file, config).context("write", file)?;
        attach(view.as_fd(), &root)?;
        let root = fs::read_link(fd_link(&view)).context("resolve", root)?;
        let mounts = mountinfo::read()?.iter().map(|mount| mount.id).collect();
        Ok(Self {
            cover,
            runtime,
            root,
            mounts,
        })
    }

    /// The runtime's root. A program that has it as its root finds the bundle at its path.
    pub fn runtime(&self) -> BorrowedFd<'_> {
        self.runtime.as_fd()
    }

    /// The path of the bundle's root for the calling process.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the bundle away. What was mounted below its root meanwhile is moved to the same place of
    /// the view.
    ///
    /// # Errors
    /// As of [`show`](Self::show).
    pub fn withdraw(self) -> Result<(), Error> {
        let is_new = |id| !self.mounts.contains(&id);
        let mounts = mountinfo::read()?;
        let here = mounts.iter().filter_map(|mount| {
            let place = mount.mount_point.strip_prefix(&self.root).ok()?;
            // The rest goes along with what it is mounted on.
            (is_new(mount.id) && !is_new(mount.parent)).then_some((mount, place))
        });
        for (mount, place) in here {
            const KEEP: &str = "keep in the view what is on";
            let to = Path::new("/").join(place);
            let onto = in_view::open(&to).context(KEEP, &to)?;
            mount_move(&mount.mount_point, fd_link(&onto)).context(KEEP, to)?;
        }
        unmount(&self.cover, UnmountFlags::DETACH).context("uncover", &self.cover)
    }
}

/// Copies the calling process's root with all that is mounted there. It is mounted nowhere.
fn copy_root() -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, "/", flags)
}

fn cover_by_tmpfs(dir: &Path) -> Result<(), Error> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("reaper-hooks", dir, "tmpfs", flags, Some(c"mode=0755")).context("cover", dir)?;
    mount_change(dir, MountPropagationFlags::PRIVATE).context("make private", dir)
}

/// Mounts a copy. What is mounted there later must not reach what it is a copy of.
fn attach(tree: BorrowedFd<'_>, to: &Path) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, to, flags).context("mount a copy on", to)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(to, private).context("make private", to)
}
