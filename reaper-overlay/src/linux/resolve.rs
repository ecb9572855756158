//! Resolving a path that a container may influence, in the calling process's own view.
//!
//! The one place that does this: symlinks are followed here, component by component, and a path
//! that reaches one of the given stops is not followed further.

pub mod in_view;

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::contract::{Context, Error};

/// As many symlinks as the kernel follows.
const MAX_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Without symlinks as far as it exists.
    pub(crate) path: PathBuf,
    /// The first of `stop` that the path runs into.
    pub(crate) inside: Option<usize>,
    /// What is missing of it, the outermost first.
    pub(crate) missing: Vec<PathBuf>,
}

/// Follows `path` from `/`, up to one of `stop`: what lies there is not for this view to say.
pub(crate) fn resolve(path: &Path, stop: &[PathBuf]) -> Result<Resolved, Error> {
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
        if let Some(at) = stop.iter().position(|stop| *stop == current) {
            current.extend(rest);
            return Ok(Resolved {
                path: current,
                inside: Some(at),
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

    #[test]
    fn links_are_followed_and_what_is_missing_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inner")).unwrap();
        symlink(root.join("real"), root.join("absolute")).unwrap();
        symlink("absolute/inner/../new", root.join("relative")).unwrap();
        let found = resolve(&root.join("relative/a/b"), &[]).unwrap();
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
        let stop = [root.join("volume")];
        let found = resolve(&root.join("volume/sub/file"), &stop).unwrap();
        assert_eq!(
            (found.inside, found.path),
            (Some(0), root.join("volume/sub/file"))
        );
        assert!(found.missing.is_empty());
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let error = resolve(&dir.path().join("a"), &[]).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ELOOP));
    }
}
