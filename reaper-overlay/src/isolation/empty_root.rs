//! A root without anything, for a process that needs no files.

use std::path::Path;

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{MountFlags, mount},
};

use crate::{
    contract::{Context, Error},
    linux::namespace::unshare_mounts,
    mount::pivot,
};

/// Any folder that every host has: what is mounted on it becomes the root, and leaves with the old one.
const PLACE: &str = "/proc";

/// Moves the calling process, which has one thread and is root on the host, to a mount namespace that has nothing but an
/// empty root. What it has open stays open.
///
/// # Errors
/// The step that failed. Some may have been done.
pub fn enter_empty_root() -> Result<(), Error> {
    unshare_mounts()?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = c"mode=0555,size=4k,nr_inodes=1";
    mount("reaper-empty", PLACE, "tmpfs", flags, options)
        .context("mount an empty root on", PLACE)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let new = openat(CWD, PLACE, flags, Mode::empty()).context("open", PLACE)?;
    pivot::exchange(&new, Path::new(PLACE))?.detach_old()
}
