//! Resolving a path that a container may influence, in the calling process's own view.
//!
//! The one place that does this, component by component. Either symlinks are followed here, and a
//! path that reaches one of the given stops is not followed further; or none is.

pub mod in_view;

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs, io,
    os::fd::AsFd,
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
    /// The innermost of `stop` that it lies in, and the last of those that are the same.
    pub(crate) inside: Option<usize>,
    /// What is missing of it, the outermost first.
    pub(crate) missing: Vec<PathBuf>,
}

/// Paths that are not followed further.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    paths: Vec<PathBuf>,
    last: HashMap<PathBuf, usize>,
}

impl Stops {
    pub(crate) fn push(&mut self, path: PathBuf) {
        self.last.insert(path.clone(), self.paths.len());
        self.paths.push(path);
    }

    /// The path that was added as the one with this number.
    pub(crate) fn get(&self, at: usize) -> &Path {
        &self.paths[at]
    }

    /// The innermost that `path` lies in, and the last of those that are the same.
    fn around(&self, path: &Path) -> Option<usize> {
        path.ancestors().find_map(|dir| self.last.get(dir).copied())
    }
}

/// Follows `path` from `/`, up to one of `stop`: what lies there is not for this view to say.
pub(crate) fn resolve(path: &Path, stop: &Stops) -> Result<Resolved, Error> {
    let mut rest: VecDeque<OsString> = parts(path);
    let mut current = PathBuf::from("/");
    let mut missing = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            current.pop();
            continue;
        }
        current.push(&part);
        if stop.last.contains_key(&current) {
            current.extend(rest);
            return Ok(Resolved {
                inside: stop.around(&current),
                path: current,
                missing,
            });
        }
        if !missing.is_empty() {
            missing.push(current.clone());
            continue;
        }
        match fs::symlink_metadata(&current) {
            Ok(metadata) if metadata.is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    let error = io::Error::from_raw_os_error(nix::libc::ELOOP);
                    return Err(error).context("follow", path);
                }
                let target = fs::read_link(&current).context("follow", &current)?;
                current.pop();
                if target.is_absolute() {
                    current = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(current.clone()),
            Err(error) => return Err(error).context("follow", &current),
        }
    }
    Ok(Resolved {
        path: current,
        inside: None,
        missing,
    })
}

/// The file at a path below `/` that had no symlinks in it when it was written down, as a mount point
/// in mountinfo. A container that may write to a directory on the way can have made one since.
/// `None` if there is no such file, or a symlink is in the way.
pub(crate) fn without_links(path: &Path) -> Result<Option<Handle>, Error> {
    let mut at = Handle::of(Path::new("/"))?;
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

    fn stops(paths: &[PathBuf]) -> Stops {
        let mut stops = Stops::default();
        paths.iter().cloned().for_each(|path| stops.push(path));
        stops
    }

    #[test]
    fn links_are_followed_and_what_is_missing_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inner")).unwrap();
        symlink(root.join("real"), root.join("absolute")).unwrap();
        symlink("absolute/inner/../new", root.join("relative")).unwrap();
        let found = resolve(&root.join("relative/a/b"), &Stops::default()).unwrap();
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
    fn a_path_stops_at_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let stop = stops(&[root.join("volume")]);
        let found = resolve(&root.join("volume/sub/file"), &stop).unwrap();
        assert_eq!(
            (found.inside, found.path),
            (Some(0), root.join("volume/sub/file"))
        );
        assert!(found.missing.is_empty());
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
        let stop = stops(&["/n", "/n/inner", "/n/inner/deep", "/n/inner"].map(PathBuf::from));
        for (path, inside) in [("/n/x", 0), ("/n/inner/x", 3), ("/n/inner/deep/x", 2)] {
            let found = resolve(Path::new(path), &stop).unwrap();
            assert_eq!((found.inside, found.path), (Some(inside), path.into()));
        }
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let error = resolve(&dir.path().join("a"), &Stops::default()).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ELOOP));
    }
}
