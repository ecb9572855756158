//! Mount points that lie inside another volume.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2},
    io::Errno,
};

use super::Volume;
use crate::{Error, error::Context};

/// Makes the mount point `path` inside `outer` if it is missing, in the volume itself, where it
/// stays, as container runtimes do it. Symlinks in the volume lead nowhere else.
pub(super) fn make(outer: &Volume, path: &Path, directory: bool) -> Result<(), Error> {
    let root = outer.source.as_ref().unwrap_or(&outer.tree);
    let Ok(relative) = path.strip_prefix(&outer.destination) else {
        return Ok(());
    };
    let mut dir: Option<OwnedFd> = None;
    let mut parts = relative.components().peekable();
    while let Some(part) = parts.next() {
        let parent = dir.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        let last = parts.peek().is_none();
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !last || directory {
            flags |= OFlags::DIRECTORY;
        }
        let find = || {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            openat2(parent, part.as_os_str(), flags, Mode::empty(), resolve)
        };
        let found = match find() {
            Err(Errno::NOENT) => {
                if last && !directory {
                    let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::EXCL;
                    openat(parent, part.as_os_str(), create, Mode::from_raw_mode(0o644))
                        .context("make the mount point", path)?;
                } else {
                    mkdirat(parent, part.as_os_str(), Mode::from_raw_mode(0o755))
                        .context("make the mount point", path)?;
                }
                find()
            }
            other => other,
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
