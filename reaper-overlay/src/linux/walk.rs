//! Going through a directory that somebody may be changing.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use crate::contract::{Context, Error};

/// Calls `each` for everything below `root`, parents before children, siblings by name.
pub(crate) fn walk(
    root: &Path,
    each: &mut dyn FnMut(&Path, &Metadata) -> Result<(), Error>,
) -> Result<(), Error> {
    // An own stack: the depth is up to workloads.
    let mut todo: Vec<PathBuf> = children(root)?;
    todo.reverse();
    while let Some(path) = todo.pop() {
        let Some(metadata) = look(&path)? else {
            continue;
        };
        each(&path, &metadata)?;
        if metadata.is_dir() {
            let mut below = children(&path)?;
            below.reverse();
            todo.append(&mut below);
        }
    }
    Ok(())
}

/// The entries of a directory by name; none if it is gone.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error).context("list", dir),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.push(entry.context("list", dir)?.path());
    }
    found.sort();
    Ok(found)
}

/// What `path` itself is; `None` if it is gone.
pub(crate) fn look(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error).context("stat", path),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
