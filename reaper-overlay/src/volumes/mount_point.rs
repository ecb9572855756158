//! A single mount point: made, guarded, removed.

use std::{fs, io, path::Path};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount},
};
use serde::{Deserialize, Serialize};

use crate::{Error, error::Context};

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Directory,
    File,
}

pub(super) fn make(path: &Path, directory: bool) -> Result<(), Error> {
    let made = if directory {
        fs::create_dir(path)
    } else {
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map(drop)
    };
    match made {
        // A workload was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context("make the mount point", path),
    }
}

/// Removes what was made, unless a workload keeps something in it.
pub(super) fn remove(path: &Path, kind: Kind) -> Result<(), Error> {
    let removed = match kind {
        Kind::Directory => fs::remove_dir(path),
        Kind::File => match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.len() == 0 => fs::remove_file(path),
            _ => Ok(()),
        },
    };
    match removed {
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            // Gone, in use, or on a volume that lets nobody remove it.
            Some(
                Errno::NOENT
                | Errno::NOTEMPTY
                | Errno::NOTDIR
                | Errno::BUSY
                | Errno::ROFS
                | Errno::ACCESS
                | Errno::PERM,
            ) => Ok(()),
            _ => Err(error).context("remove the mount point", path),
        },
        Ok(()) => Ok(()),
    }
}

pub(super) fn is_mount_point(path: &Path) -> Result<bool, Error> {
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .context("stat the mount point", path)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

pub(super) fn bind_to_itself(path: &Path) -> Result<(), Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags).context("guard", path)?;
    move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).context("guard", path)
}

pub(super) fn unguard(path: &Path) -> Result<(), Error> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno).context("take the guard off", path),
    }
}
