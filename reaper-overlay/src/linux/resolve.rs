//! Resolving a path that a container may influence, in the calling process's own view.
//!
//! The one place that does this, component by component. Either symlinks are followed here, also those that lie
//! in a volume that is not mounted yet; or none is.

pub mod in_view;

use std::{
    collections::{HashMap, VecDeque},
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Component, Path, PathBuf},
};

use rustix::io::Errno;

use super::handle::Handle;
use crate::contract::{Context, Error};

/// As many symlinks as the kernel follows.
const MAX_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Without symlinks as far as it exists.
    pub(crate) path: PathBuf,
    /// The innermost of the volumes that it lies in, and the last of those that are the same.
    pub(crate) inside: Option<usize>,
    /// What is missing of it where it lies in no volume, the outermost first.
    pub(crate) missing: Vec<PathBuf>,
}

/// Volumes that will be mounted, by their destinations.
#[derive(Debug, Default)]
pub(crate) struct Volumes<'a> {
    volumes: Vec<(PathBuf, Option<BorrowedFd<'a>>)>,
    last: HashMap<PathBuf, usize>,
}

/// What there is at a path.
enum Found {
    Link(PathBuf),
    Other,
    Nothing,
}

impl<'a> Volumes<'a> {
    /// Adds the volume that will be on `path`. Its content is at `root`, if there is any before it is mounted.
    pub(crate) fn push(&mut self, path: PathBuf, root: Option<BorrowedFd<'a>>) {
        self.last.insert(path.clone(), self.volumes.len());
        self.volumes.push((path, root));
    }

    /// The destination of the one with this number.
    pub(crate) fn get(&self, at: usize) -> &Path {
        &self.volumes[at].0
    }

    /// The innermost that `path` lies in, and the last of those that are the same.
    fn around(&self, path: &Path) -> Option<usize> {
        path.ancestors().find_map(|dir| self.last.get(dir).copied())
    }

    /// What there is at `path`, which leads through no symlink, in the volume `at`.
    fn look(&self, at: usize, path: &Path) -> Result<Found, Error> {
        let (destination, Some(root)) = &self.volumes[at] else {
            return Ok(Found::Other);
        };
        let relative = path.strip_prefix(destination).unwrap_or(path);
        if relative.as_os_str().is_empty() {
            return Ok(Found::Other);
        }
        found(Handle::below(*root, relative).context("follow", path)?)
    }
}

/// What there is at `path` in the view.
fn look(path: &Path) -> Result<Found, Error> {
    found(without_links(path)?)
}

fn found(handle: Option<Handle>) -> Result<Found, Error> {
    match handle {
        Some(link) if link.metadata().is_symlink() => Ok(Found::Link(link.target()?)),
        Some(_) => Ok(Found::Other),
        None => Ok(Found::Nothing),
    }
}

/// Follows `path` from `/`, as if `volumes` were mounted.
pub(crate) fn resolve(path: &Path, volumes: &Volumes<'_>) -> Result<Resolved, Error> {
    let mut rest: VecDeque<OsString> = parts(path);
    let mut current = PathBuf::from("/");
    let mut missing = Vec::new();
    // In this volume the path leads to what is to be made.
    let mut missing_in = None;
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            current.pop();
            continue;
        }
        current.push(&part);
        let inside = volumes.around(&current);
        let found = match inside {
            Some(at) if missing_in == Some(at) => continue,
            Some(at) => volumes.look(at, &current)?,
            None if !missing.is_empty() => Found::Nothing,
            None => look(&current)?,
        };
        match (found, inside) {
            (Found::Link(target), _) => {
                links += 1;
                if links > MAX_LINKS {
                    let error = io::Error::from_raw_os_error(nix::libc::ELOOP);
                    return Err(error).context("follow", path);
                }
                current.pop();
                if target.is_absolute() {
                    current = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
            (Found::Other, _) => {}
            (Found::Nothing, Some(at)) => missing_in = Some(at),
            (Found::Nothing, None) => missing.push(current.clone()),
        }
    }
    Ok(Resolved {
        inside: volumes.around(&current),
        path: current,
        missing,
    })
}

/// The file at a path below `/` that had no symlinks in it when it was written down, as a mount point
/// in mountinfo. A container that may write to a directory on the way can have made one since.
/// `None` if there is no such file, or a symlink is in the way.
pub(crate) fn without_links(path: &Path) -> Result<Option<Handle>, Error> {
    without_links_from(Path::new("/"), path)
}

/// The same from another root, as that of another mount namespace.
pub(crate) fn without_links_from(root: &Path, path: &Path) -> Result<Option<Handle>, Error> {
    // Itself, where it is a link to another process's root.
    match Handle::of(&root.join("."))? {
        Some(root) => Handle::below(root.as_fd(), path.strip_prefix("/").unwrap_or(path))
            .context("open", path),
        None => Ok(None),
    }
}

/// The directory in which `path` lies, on the terms of [`without_links`], and its name there.
///
/// # Errors
/// `NotFound` where that directory is not there, or a symlink has come into the way.
pub(crate) fn parent_of(path: &Path) -> Result<(Handle, &OsStr), Error> {
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => (Path::new("/"), OsStr::new(".")),
    };
    let found = without_links(parent)?.ok_or(Errno::NOENT);
    Ok((found.context("open the directory of", path)?, name))
}

/// The file that `path` leads to in a tree whose root is `root`, as for a process that has that root: the targets of
/// symlinks begin there as well. `None` if there is no such file.
pub(crate) fn in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Handle>> {
    let mut rest = parts(path);
    let Some(start) = Handle::below(root, Path::new(""))? else {
        return Ok(None);
    };
    let mut way = vec![start];
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        let dir = way.last().map_or(root, AsFd::as_fd);
        let Some(found) = Handle::at(dir, &name)? else {
            return Ok(None);
        };
        if !found.metadata().is_symlink() {
            way.push(found);
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = found.target().map_err(|error| {
            io::Error::from_raw_os_error(error.errno().unwrap_or(nix::libc::EIO))
        })?;
        if target.is_absolute() {
            way.truncate(1);
        }
        for part in parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    Ok(way.pop())
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn volumes(paths: &[PathBuf]) -> Volumes<'_> {
        let mut volumes = Volumes::default();
        paths
            .iter()
            .cloned()
            .for_each(|path| volumes.push(path, None));
        volumes
    }

    #[test]
    fn links_are_followed_and_what_is_missing_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inner")).unwrap();
        symlink(root.join("real"), root.join("absolute")).unwrap();
        symlink("absolute/inner/../new", root.join("relative")).unwrap();
        let found = resolve(&root.join("relative/a/b"), &Volumes::default()).unwrap();
        assert_eq!(found.path, root.join("real/new/a/b"));
        assert_eq!(
            found.missing,
            [
                root.join("real/new"),
                root.join("real/new/a"),
                root.join("real/new/a/b")
            ]
        );
    }

    #[test]
    fn a_path_lies_in_a_volume_without_content_of_which_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let paths = [root.join("volume")];
        let found = resolve(&root.join("volume/sub/file"), &volumes(&paths)).unwrap();
        assert_eq!(
            (found.inside, found.path),
            (Some(0), root.join("volume/sub/file"))
        );
        assert!(found.missing.is_empty());
    }

    #[test]
    fn links_in_a_volume_lead_where_they_will_lead_once_it_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let content = root.join("content");
        fs::create_dir_all(content.join("real/deep")).unwrap();
        fs::create_dir(root.join("outside")).unwrap();
        symlink("real/deep", content.join("inner")).unwrap();
        symlink(root.join("outside"), content.join("absolute")).unwrap();
        symlink("../../outside/new", content.join("real/relative")).unwrap();
        symlink("loop", content.join("loop")).unwrap();
        let file = fs::File::open(&content).unwrap();
        let mut volumes = Volumes::default();
        volumes.push(root.join("volume"), Some(file.as_fd()));
        let found = |path: &str| resolve(&root.join(path), &volumes).unwrap();
        for (path, to) in [
            ("volume/inner/x/y", "volume/real/deep/x/y"),
            ("volume/real/../inner", "volume/real/deep"),
            ("volume/none/x", "volume/none/x"),
        ] {
            let found = found(path);
            assert_eq!((found.inside, found.path), (Some(0), root.join(to)));
            assert!(found.missing.is_empty(), "{:?}", found.missing);
        }
        let out = found("volume/absolute/x");
        assert_eq!((out.inside, out.path), (None, root.join("outside/x")));
        assert_eq!(out.missing, [root.join("outside/x")]);
        let out = found("volume/real/relative");
        assert_eq!((out.inside, out.path), (None, root.join("outside/new")));
        let error = resolve(&root.join("volume/loop"), &volumes).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ELOOP));
    }

    #[test]
    fn a_path_without_links_leads_through_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inner")).unwrap();
        symlink("real", root.join("link")).unwrap();
        let found = |path: &str| without_links(&root.join(path)).unwrap();
        assert_eq!(found("real/inner").unwrap().path(), root.join("real/inner"));
        assert!(found("link/inner").is_none() && found("real/none").is_none());
        assert!(found("link").unwrap().metadata().is_symlink());
        assert!(without_links(Path::new("/")).unwrap().unwrap().is_dir());
    }

    #[test]
    fn links_in_a_tree_lead_to_what_is_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real/inner")).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        for (target, link) in [
            ("/real", "absolute"),
            ("absolute/inner/../..", "around"),
            ("../../../../etc", "real/up"),
            ("loop", "loop"),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        let root = fs::File::open(dir.path()).unwrap();
        let found = |path: &str| in_root(root.as_fd(), Path::new(path)).unwrap();
        let own = |path: &str| Handle::of(&dir.path().join(path)).unwrap().unwrap().id();
        for (path, to) in [
            ("/", "."),
            ("/real/inner", "real/inner"),
            ("/absolute/inner", "real/inner"),
            ("/around/etc", "etc"),
            ("/real/up", "etc"),
        ] {
            assert_eq!(found(path).unwrap().id(), own(to), "{path}");
        }
        assert!(found("/etc/passwd").is_none() && found("/absolute/none").is_none());
        assert!(in_root(root.as_fd(), Path::new("/loop")).is_err());
    }

    #[test]
    fn a_path_lies_in_the_innermost_volume() {
        let paths = ["/n", "/n/inner", "/n/inner/deep", "/n/inner"].map(PathBuf::from);
        let volumes = volumes(&paths);
        for (path, inside) in [("/n/x", 0), ("/n/inner/x", 3), ("/n/inner/deep/x", 2)] {
            let found = resolve(Path::new(path), &volumes).unwrap();
            assert_eq!((found.inside, found.path), (Some(inside), path.into()));
        }
    }

    #[test]
    fn symlink_loop_gives_eloop() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let error = resolve(&dir.path().join("a"), &Volumes::default()).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ELOOP));
    }
}
