//! Removing what may be large: put out of the way in one step, and then removed file by file.
//!
//! So nothing ever finds half of a scope, nobody waits with a lock held, and what a killed process
//! has not finished is found by the next one that clears up.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    contract::{Context, Error},
    linux::files::{make_dir, remove_tree},
};

/// A directory that is out of the way and yet to be removed.
#[derive(Debug)]
#[must_use = "it is still on the disk"]
pub(crate) struct Trash(Option<PathBuf>);

impl Trash {
    /// Takes `path` out of its place below the base, where it may be missing.
    pub(crate) fn discard(base: &Path, path: &Path) -> Result<Self, Error> {
        let dir = folder(base);
        make_dir(&dir)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_nanos());
        let to = dir.join(format!("{}.{now}", std::process::id()));
        match fs::rename(path, &to) {
            Ok(()) => Ok(Self(Some(to))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(error) => Err(error).context("throw away", path),
        }
    }

    /// Removes it.
    pub(crate) fn remove(self) -> Result<(), Error> {
        self.0.as_deref().map_or(Ok(()), remove_tree)
    }
}

/// Removes what others have thrown away and did not get to remove.
pub(crate) fn empty(base: &Path) -> Result<(), Error> {
    let dir = folder(base);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context("list", &dir)?,
    };
    for entry in entries {
        remove_tree(&entry.context("list", &dir)?.path())?;
    }
    Ok(())
}

fn folder(base: &Path) -> PathBuf {
    base.join("trash")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_thrown_away_is_gone_at_once_and_removed_by_whoever_clears_up() {
        let base = tempfile::tempdir().unwrap();
        let scope = base.path().join("scope");
        fs::create_dir_all(scope.join("upper/deep")).unwrap();
        let trash = Trash::discard(base.path(), &scope).unwrap();
        assert!(!scope.exists());
        drop(trash);
        assert_eq!(fs::read_dir(folder(base.path())).unwrap().count(), 1);
        empty(base.path()).unwrap();
        assert_eq!(fs::read_dir(folder(base.path())).unwrap().count(), 0);
        Trash::discard(base.path(), &scope)
            .unwrap()
            .remove()
            .unwrap();
    }
}
