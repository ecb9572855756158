//! A single mount point: made, guarded, removed.

use std::{fs, io, path::Path};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    io::Errno,
    mount::{UnmountFlags, mount_bind_recursive, unmount},
};
use serde::{Deserialize, Serialize};

use crate::{Error, error::Context, mountinfo};

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
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    if let Ok(stat) = stat
        && stat
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Before Linux 5.8.
    is_listed(path)
}

fn is_listed(path: &Path) -> Result<bool, Error> {
    let mounts = mountinfo::read()?;
    Ok(mounts.iter().any(|mount| mount.mount_point == path))
}

pub(super) fn bind_to_itself(path: &Path) -> Result<(), Error> {
    mount_bind_recursive(path, path).context("guard", path)
}

pub(super) fn unguard(path: &Path) -> Result<(), Error> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno).context("take the guard off", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_and_its_table_agree_on_mount_points() {
        for (path, expected) in [("/proc", true), ("/proc/self", false), ("/usr", false)] {
            let path = Path::new(path);
            assert_eq!(is_mount_point(path).unwrap(), expected, "{path:?}");
            assert_eq!(is_listed(path).unwrap(), expected, "{path:?}");
        }
    }
}
