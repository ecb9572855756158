//! Making single paths of a container's own view read-only, or hiding them.
//!
//! It is done in the container's own mount namespace, after all its volumes are mounted and before anything
//! runs there: no other container sees it, and neither does the host.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, StatxAttributes, StatxFlags, fstat, makedev, statx},
    mount::{MountFlags, mount, mount_bind},
};

use super::{
    attributes::{self, READ_ONLY_FOR_GOOD},
    interface::{Interface, Recursion},
};
use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{handle::fd_link, mount_point, resolve::in_view},
};

const MASK: &str = "mask";
const MAKE_READ_ONLY: &str = "make read-only";

/// What hides files, once it is known to be the device that swallows everything.
const NULL: &str = "/dev/null";

/// Hides `paths`: a directory behind an empty one, anything else behind the null device, which is empty and
/// swallows what is written. What does not exist is skipped.
pub(crate) fn mask(paths: &[PathBuf]) -> Result<(), Error> {
    let mut null = None;
    for path in paths {
        let Some(place) = find(path).context(MASK, path)? else {
            continue;
        };
        let to = fd_link(&place);
        if is_directory(&place).context(MASK, path)? {
            let flags =
                MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let options = c"mode=0755,size=4k,nr_inodes=1";
            mount("reaper-mask", to, "tmpfs", flags, options).context(MASK, path)?;
            continue;
        }
        let null = match &mut null {
            Some(null) => null,
            none => none.insert(open_null()?),
        };
        mount_bind(fd_link(null), to).context(MASK, path)?;
    }
    Ok(())
}

/// Makes `paths` read-only, with what is mounted below them. What does not exist is skipped.
pub(crate) fn make_read_only(interface: Interface, paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        let Some(mut place) = find(path).context(MAKE_READ_ONLY, path)? else {
            continue;
        };
        if !is_mount_root(&place).context(MAKE_READ_ONLY, path)? {
            place = bind_to_itself(path, &place).context(MAKE_READ_ONLY, path)?;
        }
        attributes::change(interface, place.as_fd(), Recursion::All, READ_ONLY_FOR_GOOD)
            .context(MAKE_READ_ONLY, path)?;
    }
    Ok(())
}

/// Makes a mount of what is at `path`, and returns its root.
fn bind_to_itself(path: &Path, place: &OwnedFd) -> io::Result<OwnedFd> {
    mount_point::bind_to_itself(place.as_fd())?;
    let top = in_view::open(path)?;
    let (below, above) = (fstat(place)?, fstat(&top)?);
    // Another container of the scope may have changed a symlink on the way.
    match (below.st_dev, below.st_ino) == (above.st_dev, above.st_ino) {
        true => Ok(top),
        false => Err(io::Error::from_raw_os_error(nix::libc::ESTALE)),
    }
}

/// What is at `path` in the view; `None` if nothing is, or nothing that an ordinary user could reach.
fn find(path: &Path) -> io::Result<Option<OwnedFd>> {
    match in_view::open(path) {
        Ok(place) => Ok(Some(place)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            io::ErrorKind::PermissionDenied if Privilege::of_process() == Privilege::User => {
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

/// The null device of the view. A workload may have put another file in its place, which would be shown in all
/// that is hidden.
fn open_null() -> Result<OwnedFd, Error> {
    let path = Path::new(NULL);
    let null = in_view::open(path).context("open", path)?;
    let stat = fstat(&null).context("stat", path)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(1, 3);
    if !is_null {
        let wrong = io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not the null device (character device 1:3), which has to hide files",
        );
        return Err(wrong).context("use", path);
    }
    Ok(null)
}

/// Whether it is the root of a mount. Before Linux 5.8 no: one mount more does no harm.
fn is_mount_root(place: &OwnedFd) -> io::Result<bool> {
    let stat = statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    let known = stat.stx_attributes_mask & stat.stx_attributes;
    Ok(known.contains(StatxAttributes::MOUNT_ROOT))
}

fn is_directory(place: &OwnedFd) -> io::Result<bool> {
    let mode = fstat(place)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}
