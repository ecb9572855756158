//! Making and removing the folders of cgroups, in hierarchies of both versions.
//!
//! Ancestors that are made for containers are marked, and removed with the last container in them:
//! those that were there before, as the kubelet's are, stay.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::{
    error::{Error, is_gone},
    subtree,
};

/// How often making a cgroup starts over when others remove what it lies in.
const ATTEMPTS: usize = 1000;

/// Marks the ancestors that were made for containers. `trusted` needs `CAP_SYS_ADMIN`, `user`
/// needs Linux 5.7.
const MARKS: [&str; 2] = ["trusted.reaper", "user.reaper"];

/// The mode of a container's cgroup. The sticky bit, which is no right in a folder in which no process can rename or
/// unlink, tells it from those of others from its first moment on.
const MODE: u32 = libc::S_ISVTX | 0o777;

/// The folder `relative` below `root`.
pub(super) fn below(root: &Path, relative: &Path) -> Result<PathBuf, Error> {
    let mut components = relative.components().peekable();
    if components.peek().is_none()
        || components.any(|component| !matches!(component, Component::Normal(_)))
    {
        return Err(Error::Path(relative.to_owned()));
    }
    Ok(root.join(relative))
}

/// The ancestors of a cgroup below the root of its hierarchy, the nearest first.
pub(super) fn ancestors<'a>(path: &'a Path, root: &'a Path) -> impl Iterator<Item = &'a Path> {
    path.ancestors()
        .skip(1)
        .take_while(move |&ancestor| ancestor != root && ancestor.starts_with(root))
}

/// Makes a container's cgroup and the ancestors that it needs, below `root`; `false` if it was there.
pub(super) fn make(path: &Path, root: &Path) -> Result<bool, Error> {
    for _ in 0..ATTEMPTS {
        match DirBuilder::new().mode(MODE).create(path) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            // An ancestor is missing, or another container's end has just removed it.
            Err(error) if is_gone(&error) => make_ancestors(path, root)?,
            Err(error) => return Err(Error::io("make cgroup", path)(error)),
        }
    }
    Err(Error::io("make cgroup", path)(
        io::Error::from_raw_os_error(libc::ENOENT),
    ))
}

/// Whether [`make`] has made it, by this program or another one.
pub(super) fn is_for_container(cgroup: &Path) -> bool {
    fs::symlink_metadata(cgroup)
        .is_ok_and(|folder| folder.permissions().mode() & libc::S_ISVTX != 0)
}

fn make_ancestors(path: &Path, root: &Path) -> Result<(), Error> {
    let mut missing: Vec<&Path> = ancestors(path, root).collect();
    while let Some(ancestor) = missing.pop() {
        match fs::create_dir(ancestor) {
            Ok(()) => mark(ancestor)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // One above it was removed meanwhile: the caller starts over.
            Err(error) if is_gone(&error) && ancestor.parent() != Some(root) => return Ok(()),
            Err(error) => return Err(Error::io("make cgroup", ancestor)(error)),
        }
    }
    Ok(())
}

pub(super) fn mark(cgroup: &Path) -> Result<(), Error> {
    let mut last = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    for name in MARKS {
        match setxattr(cgroup, name, b"1", XattrFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(error) => last = error.into(),
        }
    }
    match last.raw_os_error() {
        // Removed already by another container's end: then there is nothing to be marked.
        // Not allowed or not known: then it stays when all is over, which does no harm.
        Some(libc::ENOENT | libc::ENODEV | libc::EPERM | libc::EOPNOTSUPP) => Ok(()),
        _ => Err(Error::io("mark cgroup", cgroup)(last)),
    }
}

pub(super) fn is_marked(cgroup: &Path) -> bool {
    MARKS
        .iter()
        .any(|&name| getxattr(cgroup, name, &mut [0_u8; 8][..]).is_ok())
}

/// Removes the ancestors that were made for containers and are empty.
pub(super) fn remove_ancestors(path: &Path, root: &Path) -> Result<(), Error> {
    for ancestor in ancestors(path, root) {
        if !is_marked(ancestor) || !subtree::remove_dir(ancestor)? {
            break;
        }
    }
    Ok(())
}
