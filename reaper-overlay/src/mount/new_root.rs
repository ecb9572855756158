//! The root that is being assembled, in the mount namespace of a helper process.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
};

use super::{
    attributes,
    bind::{bind, relative},
    interface::{Interface, Recursion},
    mask::{How, Mask},
};
use crate::{
    contract::{Context, Error},
    linux::syscall::MountAttr,
};

/// Its root, mounted somewhere, and what mounts.
#[derive(Clone, Copy)]
pub(crate) struct NewRoot<'a> {
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) interface: Interface,
}

impl NewRoot<'_> {
    /// Shows `path` of the host at its own place.
    pub(crate) fn bind(self, path: &Path, recursion: Recursion) -> rustix::io::Result<()> {
        bind(path, &self.path(path), recursion)
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
        let target = self.path(path);
        let changed = attributes::change(self.interface, &target, recursion, read_only);
        if changed.is_err() {
            // The first error is returned; errors of undoing are ignored.
            let _ = unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        changed
    }

    /// Takes away what is mounted on `path`. It may have gone by itself.
    pub(crate) fn detach(self, path: &Path) -> Result<(), Error> {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match unmount(self.path(path), flags) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).context("take out of the view", path),
        }
    }

    /// Hides a directory behind a small filesystem, anything else behind `/dev/null`.
    pub(crate) fn mask_path(self, mask: &Mask) -> Result<(), Error> {
        let path = &mask.path;
        let Ok(metadata) = fs::symlink_metadata(self.path(path)) else {
            return Ok(());
        };
        let masked = if metadata.is_dir() {
            self.mask_directory(path, mask.how == How::Empty)
        } else if metadata.is_symlink() {
            Ok(())
        } else {
            mount_bind("/dev/null", self.path(path)).context("cover", path)
        };
        match masked {
            // It has gone since.
            Err(_) if fs::symlink_metadata(self.path(path)).is_err() => Ok(()),
            masked => masked,
        }
    }

    /// Hides the directory `path`, which may stay `open` to everybody.
    pub(crate) fn mask_directory(self, path: &Path, open: bool) -> Result<(), Error> {
        let options = if open {
            c"size=64k,mode=0755"
        } else {
            c"size=64k,mode=0700"
        };
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("reaper-cover", self.path(path), "tmpfs", flags, options).context("cover", path)
    }

    /// A path for the calls that take no directory.
    fn path(self, path: &Path) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.root.as_raw_fd().to_string())
            .join(relative(path))
    }
}
