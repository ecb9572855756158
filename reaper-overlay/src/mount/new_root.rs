//! The root that is being assembled, in the mount namespace of a helper process.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
};

use super::{
    attributes,
    bind::bind,
    interface::{Interface, Recursion},
    mask::{How, Mask},
};
use crate::{
    contract::{Context, Error},
    linux::{handle::Handle, resolve::in_root, syscall::MountAttr},
};

/// Its root, mounted somewhere, and what mounts.
#[derive(Clone, Copy)]
pub(crate) struct NewRoot<'a> {
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) interface: Interface,
}

impl NewRoot<'_> {
    /// The place of `path` in it. What containers have changed of an earlier view is there by now: the links that
    /// they have left on the way lead to where a process of the view would come to.
    pub(crate) fn place(self, path: &Path) -> io::Result<Handle> {
        in_root(self.root, path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Shows `path` of the host at its own place.
    pub(crate) fn bind(self, path: &Path, recursion: Recursion) -> io::Result<()> {
        Ok(bind(path, &self.place(path)?.link(), recursion)?)
    }

    /// The same, read-only. A mount alone is cut off from what the host mounts there later.
    pub(crate) fn bind_read_only(self, path: &Path, recursion: Recursion) -> io::Result<()> {
        self.bind(path, recursion)?;
        let read_only = MountAttr {
            propagation: match recursion {
                Recursion::Alone => nix::libc::MS_PRIVATE,
                Recursion::All => 0,
            },
            ..attributes::READ_ONLY
        };
        let bound = self.place(path)?;
        let changed = attributes::change(self.interface, bound.as_fd(), recursion, read_only);
        if changed.is_err() {
            // The first error is returned; errors of undoing are ignored.
            let _ = unmount(bound.link(), UnmountFlags::DETACH);
        }
        changed
    }

    /// Takes away what is mounted on `path`. It may have gone by itself.
    pub(crate) fn detach(self, path: &Path) -> Result<(), Error> {
        const STEP: &str = "take out of the view";
        let Some(found) = in_root(self.root, path).context(STEP, path)? else {
            return Ok(());
        };
        match unmount(found.link(), UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).context(STEP, path),
        }
    }

    /// Hides a directory behind a small filesystem, anything else behind `/dev/null`.
    pub(crate) fn mask_path(self, mask: &Mask) -> Result<(), Error> {
        let path = &mask.path;
        let Ok(place) = self.place(path) else {
            return Ok(());
        };
        let masked = if place.is_dir() {
            cover(&place, mask.how == How::Empty)
        } else {
            mount_bind("/dev/null", place.link())
        };
        match masked {
            // It has gone since.
            Err(_) if self.place(path).is_err() => Ok(()),
            masked => masked.context(COVER, path),
        }
    }

    /// Hides the directory `path`, which stays `open` for all users to list, or not.
    pub(crate) fn mask_directory(self, path: &Path, open: bool) -> Result<(), Error> {
        let place = self.place(path).context(COVER, path)?;
        cover(&place, open).context(COVER, path)
    }
}

const COVER: &str = "cover";

fn cover(place: &Handle, open: bool) -> rustix::io::Result<()> {
    let options = if open {
        c"size=64k,mode=0755"
    } else {
        c"size=64k,mode=0700"
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("reaper-cover", place.link(), "tmpfs", flags, options)
}
