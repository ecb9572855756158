//! A single mount point: made, guarded, removed.

use std::{fs, io, os::fd::AsFd, path::Path};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, open, openat, statat,
        statx, unlinkat,
    },
    io::Errno,
    mount::{
        MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind_recursive, move_mount, open_tree,
        unmount,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    in_use::{Removable, removable},
    mountinfo,
};
use crate::contract::{Context, Error};

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// Fails if the mount point `path`, which exists, is not of the kind that is needed.
pub(crate) fn check_kind(path: &Path, directory: bool) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).context("stat", path)?;
    kind_is_right(path, directory, metadata.is_dir())
}

/// Fails with [`Error::MountKind`] if `is_dir` is not what is needed at `destination`.
pub(crate) fn kind_is_right(
    destination: &Path,
    directory: bool,
    is_dir: bool,
) -> Result<(), Error> {
    if is_dir == directory {
        return Ok(());
    }
    Err(Error::MountKind {
        destination: destination.to_owned(),
        directory,
    })
}

/// Makes the directory or empty file `path`, unless it was made meanwhile. Returns whether it was made here.
pub(crate) fn make(path: &Path, directory: bool) -> Result<bool, Error> {
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
        // A container was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true).context("make the mount point", path),
    }
}

/// What became of a mount point that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It was removed, or is to stay.
    Done,
    /// A container, of another base, has something mounted on it.
    InUse,
}

/// Removes a mount point that was made, unless a container keeps something in it or has it in
/// [use](super::in_use). No symlink is
/// followed on the way: a container may have put one there since that leads to a file of the host.
pub(crate) fn remove(path: &Path, kind: Kind) -> Result<Removal, Error> {
    match try_remove(path, kind) {
        Ok(removal) => Ok(removal),
        // It no longer exists, was moved away, is in use, or lies on a volume that is read-only.
        Err(
            Errno::NOENT
            | Errno::NOTEMPTY
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::BUSY
            | Errno::ROFS
            | Errno::ACCESS
            | Errno::PERM,
        ) => Ok(Removal::Done),
        Err(errno) => Err(errno).context("remove the mount point", path),
    }
}

fn try_remove(path: &Path, kind: Kind) -> rustix::io::Result<Removal> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Removal::Done);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = open("/", flags, Mode::empty())?;
    for part in parent.components().skip(1) {
        dir = openat(&dir, part.as_os_str(), flags, Mode::empty())?;
    }
    let asked = removable(dir.as_fd(), name)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let _alone = match asked {
        Removable::Yes(lock) => lock,
        Removable::InUse => return Ok(Removal::InUse),
        Removable::Gone => return Ok(Removal::Done),
    };
    match kind {
        Kind::Directory => unlinkat(&dir, name, AtFlags::REMOVEDIR)?,
        Kind::File => {
            let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !is_file || stat.st_size != 0 {
                return Ok(Removal::Done);
            }
            unlinkat(&dir, name, AtFlags::empty())?;
        }
    }
    Ok(Removal::Done)
}

pub(crate) fn is_mount_point(path: &Path) -> Result<bool, Error> {
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

pub(crate) fn bind_to_itself(path: &Path) -> Result<(), Error> {
    mount_bind_recursive(path, path).context("guard", path)
}

/// The same of the symlink at `path` itself, which stays one. Needs the calls of Linux 5.2.
pub(crate) fn bind_link_to_itself(path: &Path) -> Result<(), Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let link = open_tree(CWD, path, flags).context("guard", path)?;
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&link, "", CWD, path, onto).context("guard", path)
}

pub(crate) fn unguard(path: &Path) -> Result<(), Error> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno).context("take the guard off", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remove_does_not_follow_symlinked_parent() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        for made in ["theirs", "ours"] {
            make(&dir.join(made), true).unwrap();
            make(&dir.join(made).join("point"), true).unwrap();
            make(&dir.join(made).join("file"), false).unwrap();
        }
        std::os::unix::fs::symlink("theirs", dir.join("link")).unwrap();
        for parent in ["link", "ours"] {
            remove(&dir.join(parent).join("point"), Kind::Directory).unwrap();
            remove(&dir.join(parent).join("file"), Kind::File).unwrap();
        }
        assert!(dir.join("theirs/point").is_dir() && dir.join("theirs/file").is_file());
        assert_eq!(fs::read_dir(dir.join("ours")).unwrap().count(), 0);
    }

    #[test]
    fn the_kernel_and_its_table_agree_on_mount_points() {
        for (path, expected) in [("/proc", true), ("/proc/self", false), ("/usr", false)] {
            let path = Path::new(path);
            assert_eq!(is_mount_point(path).unwrap(), expected, "{path:?}");
            assert_eq!(is_listed(path).unwrap(), expected, "{path:?}");
        }
    }
}
