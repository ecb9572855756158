//! A single mount point: made, guarded, removed.

use std::{
    ffi::OsStr,
    fs,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags, mkdirat, open, openat,
        statat, statx, unlinkat,
    },
    io::Errno,
    mount::{
        MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind_recursive, move_mount, open_tree,
        unmount,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    handle::{Handle, fd_link},
    in_use::{self, Removable, removable},
    mountinfo,
    resolve::{parent_of, without_links},
};
use crate::contract::{Context, Error};

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// The mount point of a volume inside another one, or a directory on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// On the host.
    pub(crate) path: PathBuf,
    /// What it will be, if it is about to be made.
    pub(crate) missing: Option<Kind>,
    pub(crate) is_mount_point: bool,
}

/// The mount point at `path`, which is free of symlinks.
///
/// # Errors
/// `NotFound` where it is not there, or a symlink has come into the way since it was resolved.
pub(crate) fn find(path: &Path) -> Result<Handle, Error> {
    let found = without_links(path)?.ok_or(Errno::NOENT);
    found.context("open the mount point", path)
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

/// Makes the directory or empty file `path`, which is free of symlinks, unless it was made meanwhile, and marks it
/// as [made by Reaper](in_use::mark) if it `is_shared` with other bases. Returns whether it was made here.
pub(crate) fn make(path: &Path, kind: Kind, is_shared: bool) -> Result<bool, Error> {
    let (dir, name) = parent_of(path)?;
    let made = match make_in(dir.as_fd(), name, kind) {
        // A container was quicker.
        Err(Errno::EXIST) => return Ok(false),
        made => made,
    };
    made.context("make the mount point", path)?;
    if is_shared {
        in_use::mark(dir.as_fd(), name);
    }
    Ok(true)
}

/// Makes the directory or empty file `name` in the directory `dir`.
pub(crate) fn make_in(dir: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> rustix::io::Result<()> {
    match kind {
        Kind::Directory => mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::EXCL;
            openat(dir, name, create, Mode::from_raw_mode(0o644)).map(drop)
        }
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

/// Whether `found` is the root of a mount.
pub(crate) fn is_mount_point(found: BorrowedFd<'_>) -> Result<bool, Error> {
    let stat = statx(found, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE);
    if let Ok(stat) = stat
        && stat
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Before Linux 5.8.
    is_listed(found)
}

fn is_listed(found: BorrowedFd<'_>) -> Result<bool, Error> {
    let link = fd_link(&found);
    let path = fs::read_link(&link).context("read the path of", link)?;
    let mounts = mountinfo::read()?;
    Ok(mounts.iter().any(|mount| mount.mount_point == path))
}

/// Binds what was [found](find) to itself.
pub(crate) fn bind_to_itself(found: BorrowedFd<'_>) -> rustix::io::Result<()> {
    mount_bind_recursive(fd_link(&found), fd_link(&found))
}

/// The same of a symlink, which stays one. Needs the calls of Linux 5.2.
pub(crate) fn bind_link_to_itself(link: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    move_to(open_tree(link, "", flags)?.as_fd(), link)
}

/// Mounts `tree`, which is mounted nowhere, on what was found, itself where that is a symlink.
pub(crate) fn move_to(tree: BorrowedFd<'_>, found: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", found, "", flags)
}

/// Takes the guard off `path`, which is free of symlinks. There may be none.
pub(crate) fn unguard(path: &Path) -> Result<(), Error> {
    let Some(guarded) = without_links(path)? else {
        return Ok(());
    };
    match unmount(guarded.link(), UnmountFlags::DETACH) {
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
            make(&dir.join(made), Kind::Directory, false).unwrap();
            make(&dir.join(made).join("point"), Kind::Directory, false).unwrap();
            make(&dir.join(made).join("file"), Kind::File, false).unwrap();
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
    fn nothing_is_made_through_a_link_that_has_come_into_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("theirs/kept")).unwrap();
        std::os::unix::fs::symlink(dir.join("theirs"), dir.join("link")).unwrap();
        for (name, kind) in [("point", Kind::Directory), ("file", Kind::File)] {
            let error = make(&dir.join("link").join(name), kind, true).unwrap_err();
            assert!(error.is_gone(), "{error}");
        }
        assert!(find(&dir.join("link/kept")).unwrap_err().is_gone());
        // Nothing is mounted on either.
        unguard(&dir.join("link/kept")).unwrap();
        unguard(&dir.join("theirs/kept")).unwrap();
        assert_eq!(fs::read_dir(dir.join("theirs")).unwrap().count(), 1);
    }

    #[test]
    fn the_kernel_and_its_table_agree_on_mount_points() {
        for (path, expected) in [("/proc", true), ("/proc/self", false), ("/usr", false)] {
            let found = find(Path::new(path)).unwrap();
            assert_eq!(is_mount_point(found.as_fd()).unwrap(), expected, "{path}");
            assert_eq!(is_listed(found.as_fd()).unwrap(), expected, "{path}");
        }
    }
}
