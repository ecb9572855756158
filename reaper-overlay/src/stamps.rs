//! Noticing that the host changed under an overlay.
//!
//! What the kernel shows of an overlay whose lower layer was changed is undefined, though it does
//! no harm: a file may be the old one or the new one. People should know, and reset the scope.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

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

/// The identity of what an overlay lies on: filesystems and package databases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamps(BTreeMap<String, String>);

impl Stamps {
    /// Looks at the databases and at the roots of `mounts`.
    pub(crate) fn take<'a>(mounts: impl Iterator<Item = &'a Path>) -> Self {
        let databases = DATABASES.iter().filter_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            let stamp = format!(
                "{} {}.{:09}",
                metadata.ino(),
                metadata.mtime(),
                metadata.mtime_nsec()
            );
            Some(((*path).to_owned(), stamp))
        });
        let mounts = mounts.filter_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            let stamp = format!("{}:{}", metadata.dev(), metadata.ino());
            Some((path.to_string_lossy().into_owned(), stamp))
        });
        Self(databases.chain(mounts).collect())
    }

    /// Whether it knows of `path`.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.0.contains_key(&*path.to_string_lossy())
    }

    /// The paths that are not what they were.
    pub(crate) fn changed_since(&self, before: &Self) -> Vec<String> {
        let paths = self
            .0
            .keys()
            .chain(before.0.keys().filter(|path| !self.0.contains_key(*path)));
        paths
            .filter(|path| self.0.get(*path) != before.0.get(*path))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_filesystem_at_a_path_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mount");
        fs::create_dir(&path).unwrap();
        let before = Stamps::take([path.as_path()].into_iter());
        assert!(before.changed_since(&before).is_empty());
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        let after = Stamps::take([path.as_path()].into_iter());
        assert_eq!(after.changed_since(&before), [path.to_str().unwrap()]);
        let gone = Stamps::take([].into_iter());
        assert_eq!(gone.changed_since(&before), [path.to_str().unwrap()]);
    }
}
