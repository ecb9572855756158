//! Resolving a path that a container may influence, in the calling process's own view.
//!
//! The one place that does this, component by component. Either symlinks are followed here, also those that lie
//! in a volume that is not mounted yet; or none is.

pub mod in_view;

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Component, Path, PathBuf},
};

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
        let mut dir: Option<Handle> = None;
        for name in relative {
            let parent = dir.as_ref().map_or(*root, AsFd::as_fd);
            match Handle::at(parent, name).context("follow", path)? {
                Some(handle) => dir = Some(handle),
                None => return Ok(Found::Nothing),
            }
        }
        match dir {
            Some(handle) if handle.metadata().is_symlink() => Ok(Found::Link(handle.target()?)),
            _ => Ok(Found::Other),
        }
    }
}

/// What there is at `path` in the view.
fn look(path: &Path) -> Result<Found, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            Ok(Found::Link(fs::read_link(path).context("follow", path)?))
        }
        Ok(_) => Ok(Found::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error).context("follow", path),
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
    let mut at = Handle::of(&root.join("."))?;
    for component in path.components() {
        if let (Component::Normal(name), Some(dir)) = (component, &at) {
            at = Handle::at(dir.as_fd(), name).context("open", path)?;
        }
    }
    Ok(at)
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
    use std::os::unix::fs::symlink;

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
