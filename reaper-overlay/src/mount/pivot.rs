//! Exchanging the root of a mount namespace.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    io::Errno,
    mount::{UnmountFlags, mount_move, unmount},
    process::{chdir, chroot, fchdir, pivot_root},
};

use crate::contract::{Context, Error};

/// The root that was. It can be reached by descriptors only.
#[must_use]
pub(crate) struct OldRoot {
    /// Whether it is still mounted, on the new one.
    there: bool,
}

/// Makes `root`, which is mounted on `at`, the root of the calling process and of its namespace.
pub(crate) fn exchange(root: &OwnedFd, at: &Path) -> Result<OldRoot, Error> {
    fchdir(root).context("change to", at)?;
    match pivot_root(".", ".") {
        Ok(()) => Ok(OldRoot { there: true }),
        // The root of an initramfs cannot be exchanged, only be covered.
        Err(Errno::INVAL) => {
            mount_move(".", "/").context("move to /", at)?;
            chroot(".").context("change the root to", at)?;
            Ok(OldRoot { there: false })
        }
        Err(errno) => Err(errno).context("make the root of", at),
    }
}

impl OldRoot {
    /// Unmounts it with all below: what stays mounted here would be copied for every container,
    /// and keep the host's devices busy.
    pub(crate) fn detach_old(self) -> Result<(), Error> {
        if self.there {
            chdir("/").context("change to", "/")?;
            unmount(".", UnmountFlags::DETACH).context("let go of the host's", "/")?;
        }
        chdir("/").context("change to", "/")
    }
}
