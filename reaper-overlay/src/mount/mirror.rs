//! A bundle whose root is the view, shown inside of the view for a while.
//!
//! Programs that prepare a container before its own runs, OCI's hooks, look for its root where the
//! bundle says that it is, and some make that their root by pivot_root(2), which the root itself
//! refuses. But the view is the root, and bundles are mostly hidden in it.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_move, unmount,
};

use super::{bind::bind, interface::Recursion};
use crate::{
    contract::{Context, Error},
    linux::mountinfo,
};

/// A bundle in the mount namespace of the calling process, whose root is that process's root with all
/// that is mounted there. Nothing outside of the namespace sees it, which must be a container's own.
#[derive(Debug)]
pub struct BundleMirror {
    /// What is covered, an ancestor of the bundle.
    cover: PathBuf,
    /// The bundle's root.
    root: PathBuf,
    /// The mounts that were there when the root was bound.
    mounts: HashSet<u32>,
}

impl BundleMirror {
    /// Shows a bundle at the path `bundle`, absolute, with this text as its `config.json`, and its root
    /// at the relative path `root`. Where the path does not exist, the nearest directory above it is
    /// covered that does.
    ///
    /// # Errors
    /// The step that failed. Mounts that were made stay, as they do when this is dropped: the process
    /// is to give up its namespace.
    pub fn show(bundle: &Path, config: &[u8], root: &Path) -> Result<Self, Error> {
        let above = bundle.ancestors().find(|dir| dir.is_dir());
        let above = above.filter(|dir| dir.parent().is_some());
        let above = above.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let above = above.context("show in the view the bundle", bundle)?;
        // As the table of mounts has it.
        let cover = fs::canonicalize(above).context("resolve", above)?;
        let bundle = cover.join(bundle.strip_prefix(above).unwrap_or(bundle));
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("reaper-hooks", &cover, "tmpfs", flags, Some(c"mode=0755"))
            .context("cover", &cover)?;
        let private = MountPropagationFlags::PRIVATE;
        mount_change(&cover, private).context("make private", &cover)?;
        let root = bundle.join(root);
        fs::create_dir_all(&root).context("make", &root)?;
        let file = bundle.join("config.json");
        fs::write(&file, config).context("write", file)?;
        bind(Path::new("/"), &root, Recursion::All).context("bind / to", &root)?;
        // What is mounted there must not reach what the view's own mounts reach.
        mount_change(&root, private | MountPropagationFlags::REC).context("make private", &root)?;
        let mounts = mountinfo::read()?.iter().map(|mount| mount.id).collect();
        Ok(Self {
            cover,
            root,
            mounts,
        })
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
            let to = Path::new("/").join(place);
            mount_move(&mount.mount_point, &to).context("keep in the view what is on", to)?;
        }
        unmount(&self.cover, UnmountFlags::DETACH).context("uncover", &self.cover)
    }
}
