//! Mount points that lie inside another volume.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2},
    io::Errno,
};

use super::mount_point::Kind;
use crate::{Error, error::Context};

/// Is told of a part of a mount point: where it is, its name, and what it will be if it is missing.
pub(super) type Note<'a> =
    &'a mut dyn FnMut(BorrowedFd<'_>, &OsStr, Option<Kind>) -> Result<(), Error>;

/// Makes the mount point `path` if it is missing, in the volume on `outer`, whose root is `root`.
/// `note` is told of each part on the way before it is made or used. Symlinks in the volume lead
/// nowhere else; before Linux 5.6, which can see to that, they are refused.
pub(super) fn make(
    root: BorrowedFd<'_>,
    outer: &Path,
    path: &Path,
    directory: bool,
    note: Note<'_>,
) -> Result<(), Error> {
    let Ok(relative) = path.strip_prefix(outer) else {
        return Ok(());
    };
    let mut dir: Option<OwnedFd> = None;
    let mut parts = relative.components().peekable();
    while let Some(part) = parts.next() {
        let parent = dir.as_ref().map_or(root, AsFd::as_fd);
        let last = parts.peek().is_none();
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !last || directory {
            flags |= OFlags::DIRECTORY;
        }
        let find = || {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match openat2(parent, part.as_os_str(), flags, Mode::empty(), resolve) {
                Err(Errno::NOSYS | Errno::PERM) => {
                    let flags = flags | OFlags::NOFOLLOW;
                    openat(parent, part.as_os_str(), flags, Mode::empty())
                }
                other => other,
            }
        };
        let mut note = |missing| note(parent, part.as_os_str(), missing);
        let found = match find() {
            Err(Errno::NOENT) => {
                let is_file = last && !directory;
                note(Some(if is_file { Kind::File } else { Kind::Directory }))?;
                if is_file {
                    let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::EXCL;
                    openat(parent, part.as_os_str(), create, Mode::from_raw_mode(0o644))
                        .context("make the mount point", path)?;
                } else {
                    mkdirat(parent, part.as_os_str(), Mode::from_raw_mode(0o755))
                        .context("make the mount point", path)?;
                }
                find()
            }
            other => {
                note(None)?;
                other
            }
        };
        let found = match found {
            Err(Errno::NOTDIR) => {
                return Err(Error::MountKind {
                    destination: path.to_owned(),
                    directory,
                });
            }
            other => other.context("open the mount point", path)?,
        };
        if last && !directory {
            let stat = fstat(&found).context("stat the mount point", path)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Err(Error::MountKind {
                    destination: path.to_owned(),
                    directory,
                });
            }
        }
        dir = Some(found);
    }
    Ok(())
}
