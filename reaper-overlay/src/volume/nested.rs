//! Mount points that lie inside another volume.

use std::{
    ffi::OsStr,
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, openat},
    io::Errno,
};

use crate::{
    contract::{Context, Error},
    linux::{
        handle::{Handle, fd_link},
        in_use,
        mount_point::{Kind, Part, kind_is_right, make_in},
    },
};

/// A part of a mount point that is about to be made or used.
pub(crate) struct Component<'a> {
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// What it will be, if it is missing.
    pub(crate) missing: Option<Kind>,
    /// Whether it is the mount point itself.
    pub(crate) is_last: bool,
}

/// Is told of each part of a mount point.
pub(crate) type OnComponent<'a> = &'a mut dyn FnMut(Component<'_>) -> Result<(), Error>;

/// The parts of the mount point `path`, as [`make`] would come to them, in the volume on `outer`, whose root is
/// `root`, of the host.
pub(crate) fn look(
    root: BorrowedFd<'_>,
    outer: &Path,
    path: &Path,
    directory: bool,
) -> Result<Vec<Part>, Error> {
    let relative = path.strip_prefix(outer).unwrap_or(Path::new(""));
    let link = fd_link(&root);
    let mut at = fs::read_link(&link).context("follow", link)?;
    // Below what is missing nothing is there.
    let mut dir = Handle::below(root, Path::new("")).context("open the mount point", path)?;
    let mut found = Vec::new();
    let mut names = relative.iter().peekable();
    while let Some(name) = names.next() {
        at.push(name);
        dir = match dir {
            Some(parent) => {
                Handle::at(parent.as_fd(), name).context("open the mount point", path)?
            }
            None => None,
        };
        let is_mount_point = names.peek().is_none();
        let kind = match is_mount_point && !directory {
            true => Kind::File,
            false => Kind::Directory,
        };
        found.push(Part {
            path: at.clone(),
            missing: dir.is_none().then_some(kind),
            is_mount_point,
        });
    }
    Ok(found)
}

/// Makes the mount point `path` if it is missing, in the volume on `outer`, whose root is `root`.
/// `on_component` is called for each part on the way before it is made or used. `path` was resolved: a symlink
/// that is there now was made since, and is refused.
pub(crate) fn make(
    root: BorrowedFd<'_>,
    outer: &Path,
    path: &Path,
    directory: bool,
    on_component: OnComponent<'_>,
) -> Result<(), Error> {
    let Ok(relative) = path.strip_prefix(outer) else {
        return Ok(());
    };
    let mut dir: Option<OwnedFd> = None;
    let mut parts = relative.components().peekable();
    while let Some(part) = parts.next() {
        let parent = dir.as_ref().map_or(root, AsFd::as_fd);
        let last = parts.peek().is_none();
        let mut flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !last || directory {
            flags |= OFlags::DIRECTORY;
        }
        let find = || openat(parent, part.as_os_str(), flags, Mode::empty());
        let is_file = last && !directory;
        let kind = if is_file { Kind::File } else { Kind::Directory };
        let component = |missing| Component {
            parent,
            name: part.as_os_str(),
            missing,
            is_last: last,
        };
        let make = |on_component: OnComponent<'_>| {
            on_component(component(Some(kind)))?;
            make_part(parent, part.as_os_str(), kind).context("make the mount point", path)?;
            Ok::<_, Error>(find())
        };
        let found = match find() {
            Err(Errno::NOENT) => make(&mut *on_component)?,
            _ => {
                on_component(component(None))?;
                // Until it was noted, another container's end could remove it.
                match find() {
                    Err(Errno::NOENT) => make(&mut *on_component)?,
                    found => found,
                }
            }
        };
        let found = match found {
            Err(Errno::NOTDIR) => return kind_is_right(path, directory, !directory),
            other => other.context("open the mount point", path)?,
        };
        if is_file {
            let stat = fstat(&found).context("stat the mount point", path)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Symlink {
                return Err(Errno::LOOP).context("open the mount point", path);
            }
            kind_is_right(path, directory, kind == FileType::Directory)?;
        }
        dir = Some(found);
    }
    Ok(())
}

/// Makes a directory or an empty file, unless another container that needs it was quicker.
fn make_part(parent: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> rustix::io::Result<()> {
    match make_in(parent, name, kind) {
        Err(Errno::EXIST) => Ok(()),
        made => {
            made?;
            in_use::mark(parent, name);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Makes `a/b` in a volume, and lets `meanwhile` do something with a part each time that one
    /// is noted.
    fn make_meanwhile(directory: bool, meanwhile: fn(PathBuf, Option<Kind>)) -> PathBuf {
        let dir = tempfile::tempdir().unwrap().keep();
        let root = fs::File::open(&dir).unwrap();
        fs::create_dir(dir.join("a")).unwrap();
        let mut note = |part: Component<'_>| {
            let parent = fs::read_link(fd_link(&part.parent)).unwrap();
            meanwhile(parent.join(part.name), part.missing);
            Ok(())
        };
        let (outer, path) = (Path::new("/volume"), Path::new("/volume/a/b"));
        make(root.as_fd(), outer, path, directory, &mut note).unwrap();
        dir
    }

    #[test]
    fn mount_point_created_concurrently_is_accepted() {
        for directory in [true, false] {
            let dir = make_meanwhile(directory, |path, missing| match missing {
                Some(Kind::Directory) => fs::create_dir(path).unwrap(),
                Some(Kind::File) => fs::write(path, "").unwrap(),
                None => {}
            });
            assert_eq!(dir.join("a/b").is_dir(), directory);
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn mount_point_removed_before_registration_is_recreated() {
        let dir = make_meanwhile(true, |path, missing| {
            if missing.is_none() {
                fs::remove_dir(path).unwrap();
            }
        });
        assert!(dir.join("a/b").is_dir());
        fs::remove_dir_all(dir).unwrap();
    }
}
