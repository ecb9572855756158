//! Noticing that the host changed under an overlay.
//!
//! What the kernel shows of an overlay whose lower layer was changed is undefined, though it does
//! no harm: a file may be the old one or the new one. People should know, and reset the scope.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

use crate::mountinfo::{escape, unescape};

/// What package managers touch whenever they change the host.
const DATABASES: [&str; 8] = [
    "/var/lib/dpkg/status",
    "/var/lib/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/Packages.db",
    "/lib/apk/db/installed",
    "/var/lib/pacman/local",
    "/nix/var/nix/db/db.sqlite",
];

/// The identity of what an overlay lies on: filesystems and package databases, by their path,
/// escaped as in mountinfo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamps(BTreeMap<String, String>);

impl Stamps {
    /// Looks at the databases and at the roots of `mounts`.
    pub(crate) fn take<'a>(mounts: impl Iterator<Item = &'a Path>) -> Self {
        let databases = DATABASES
            .into_iter()
            .filter_map(|path| Some((path.to_owned(), database(Path::new(path))?)));
        let mounts = mounts.filter_map(|path| Some((escape(path.as_os_str()), filesystem(path)?)));
        Self(databases.chain(mounts).collect())
    }

    /// The paths that are not what they were, escaped. It is called for each container that joins
    /// a scope, so it makes nothing that it does not need.
    pub(crate) fn changed(&self) -> Vec<String> {
        let appeared = DATABASES
            .into_iter()
            .filter(|path| !self.0.contains_key(*path) && Path::new(path).exists())
            .map(str::to_owned);
        let differ = self.0.iter().filter(|(name, was)| {
            let path = unescape(name.as_bytes());
            let now = if DATABASES.contains(&name.as_str()) {
                database(path.as_ref())
            } else {
                filesystem(path.as_ref())
            };
            now.as_ref() != Some(*was)
        });
        appeared
            .chain(differ.map(|(path, _)| path.clone()))
            .collect()
    }
}

/// What every change of a package database changes.
fn database(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    Some(format!(
        "{} {}.{:09}",
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ))
}

/// Which filesystem, and which directory of it.
fn filesystem(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_filesystem_at_a_path_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(r"mount of\ours");
        fs::create_dir(&path).unwrap();
        let before = Stamps::take([path.as_path()].into_iter());
        assert_eq!(before.changed(), [""; 0]);
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(before.changed(), [escape(path.as_os_str())]);
        fs::remove_dir(&path).unwrap();
        assert_eq!(before.changed(), [escape(path.as_os_str())]);
    }
}
