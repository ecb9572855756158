//! Mount points of the host that containers of several bases use.
//!
//! The registry of a base counts the users that this base knows, and there may be others: another
//! configuration, another user. The kernel does not keep one from removing what another has mounted on:
//! rmdir(2) and unlink(2) of a mount point take away what is mounted on it in other mount namespaces. So who mounts on
//! one holds it locked until its container has ended, and who removes one has it locked alone. The lock (flock(2))
//! belongs to the inode, whatever path leads to it, and ends with the process that holds it.
//!
//! A mark, an extended attribute, says that Reaper has made it: then its last user removes it, of whatever
//! base that is. Where a filesystem has no such attributes, the base that has made it tries again later.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    time::Duration,
};

use nix::libc;
use rustix::{
    fs::{XattrFlags, getxattr, lsetxattr},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use super::{
    flock::{Mode, lock_open_within, try_lock_open},
    handle::{Handle, fd_link},
    mount_point::Kind,
    resolve::{without_links, without_links_from},
};
use crate::contract::{Context, Error};

/// Kept from containers of ordinary users by its class (xattr(7)).
const MARK: &str = "trusted.reaper.mount-point";

/// How long a process that has a mount point locked alone is waited for. Reaper has one so for the moment that
/// removing it takes.
const REMOVAL: Duration = Duration::from_secs(1);

/// A mount point that no Reaper removes until this is dropped.
#[derive(Debug)]
pub(crate) struct InUse {
    /// Missing where it cannot be locked: no Reaper has made that one, no lock is known there, or another program
    /// keeps it locked.
    _locked: Option<File>,
}

impl InUse {
    /// Holds the mount point at `path` of the host, whose root is `root`. The path is free of symlinks.
    ///
    /// # Errors
    /// `NotFound` if it was removed meanwhile; the lock's.
    pub(crate) fn on_host(root: &Path, path: &Path) -> Result<Self, Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Self { _locked: None });
        };
        let parent = without_links_from(root, parent)?.ok_or(Errno::NOENT);
        let parent = parent.context("open the mount point", path)?;
        Self::below(parent.as_fd(), Path::new(name))
    }

    /// The same of the one at `relative` below `root`.
    pub(crate) fn below(root: BorrowedFd<'_>, relative: &Path) -> Result<Self, Error> {
        const STEP: &str = "open the mount point";
        let root = apart(root).context(STEP, relative)?;
        let find = || -> Result<Handle, Error> {
            let found = Handle::below(root.as_fd(), relative).context(STEP, relative)?;
            found.ok_or(Errno::NOENT).context(STEP, relative)
        };
        let found = find()?;
        let Some(file) = open_content(&found) else {
            return Ok(Self { _locked: None });
        };
        let locked = match lock_open_within(&file, Mode::Shared, REMOVAL) {
            Ok(()) => Some(file),
            Err(error) if is_not_lockable(&error) => return Ok(Self { _locked: None }),
            // Any program that may read it can lock it, a container of another pod too, and must not hold
            // this one back. As long as it does, no Reaper removes the mount point.
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => None,
            Err(error) => return Err(error).context("lock the mount point", relative),
        };
        // Who had it alone may have removed it.
        if find()?.id() != found.id() {
            return Err(Errno::NOENT).context(STEP, relative);
        }
        Ok(Self { _locked: locked })
    }
}

/// Whether a mount point may be removed.
pub(crate) enum Removable {
    /// It may, while this is held.
    Yes(Option<File>),
    /// A container has something mounted on it.
    InUse,
    /// It no longer exists, or another file has come to its name.
    Gone,
}

/// Asks whether the entry `name` of `dir` may be removed.
pub(crate) fn removable(dir: BorrowedFd<'_>, name: &OsStr) -> std::io::Result<Removable> {
    let Some(found) = Handle::at(dir, name)? else {
        return Ok(Removable::Gone);
    };
    let Some(file) = open_content(&found) else {
        return Ok(Removable::Yes(None));
    };
    match try_lock_open(&file, Mode::Exclusive) {
        Ok(true) => {}
        Ok(false) => return Ok(Removable::InUse),
        Err(error) if is_not_lockable(&error) => return Ok(Removable::Yes(None)),
        Err(error) => return Err(error),
    }
    // From here on no Reaper removes it, nor mounts on it.
    let now = Handle::at(dir, name)?;
    Ok(match now.is_some_and(|now| now.id() == found.id()) {
        true => Removable::Yes(Some(file)),
        false => Removable::Gone,
    })
}

/// Opens a directory or a regular file; nothing else is a mount point that Reaper makes. Where the process may
/// not read it, it has not made it either.
fn open_content(found: &Handle) -> Option<File> {
    if !found.is_dir() && !found.metadata().is_file() {
        return None;
    }
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(flags)
        .open(found.link())
        .ok()
}

/// Whether the filesystem has no such locks: NFS refuses them on directories.
fn is_not_lockable(error: &std::io::Error) -> bool {
    let refused = [
        libc::EBADF,
        libc::EINVAL,
        libc::ENOLCK,
        libc::EOPNOTSUPP,
        libc::ENOSYS,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| refused.contains(&errno))
}

/// The directory `dir` by a mount that is mounted nowhere, so that what is open below it does not keep the host
/// from unmounting its own; `dir` itself where there is no such mount.
fn apart(dir: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(dir, "", flags).or_else(|_| dir.try_clone_to_owned())
}

/// Marks the entry `name` of `dir`, a directory or file which was just made, where the filesystem takes marks and
/// the process may set them.
pub(crate) fn mark(dir: BorrowedFd<'_>, name: &OsStr) {
    let _ = lsetxattr(fd_link(&dir).join(name), MARK, b"1", XattrFlags::empty());
}

/// What Reaper has made at `path`, which is free of symlinks, as far as that is marked.
pub(crate) fn marked(path: &Path) -> Option<Kind> {
    let found = without_links(path).ok()??;
    let mut value = [0; 1];
    let kind = match () {
        () if found.is_dir() => Kind::Directory,
        () if found.metadata().is_file() => Kind::File,
        () => return None,
    };
    getxattr(found.link(), MARK, &mut value[..]).ok()?;
    Some(kind)
}
