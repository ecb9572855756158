//! The registry of mount points: which were made, and for whom (`mount-points.json`).
//!
//! It lasts as long as the layers do: what was made on a disk outlives the machine's run, and so
//! has to be known after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    base::Base,
    home::boot_id,
    members::members,
    paths::{RECORDS, ScopePaths},
    record::Record,
};
use crate::{
    contract::{Error, Scope, host_paths::HOST_TREES},
    linux::{
        flock::{Lock, Mode},
        mount_point::{Kind, Removal, remove},
        mountinfo::{escape, unescape},
    },
};

/// What the keys of mount points inside volumes begin with. They are paths of the host.
pub(crate) const INSIDE: &str = "@ ";

/// Whether containers of other bases may use the mount point with this key: it is the host's.
pub(crate) fn is_shared(key: &str) -> bool {
    key.starts_with(' ') || key.starts_with(INSIDE)
}

/// The version of `mount-points.json` that this crate writes, and the newest that it reads.
/// Files of before it had a version are of the same format.
const VERSION: u32 = 1;

/// One mount point that was made or is guarded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct MountPoint {
    path: String,
    /// Whether it was missing, and so is removed with its last user.
    pub(crate) made: Option<Kind>,
    /// The users, by scope.
    pub(crate) users: BTreeMap<String, BTreeSet<String>>,
    /// The scopes in which it is guarded.
    pub(crate) guarded: BTreeSet<String>,
}

impl MountPoint {
    pub(crate) fn path(&self) -> PathBuf {
        unescape(self.path.as_bytes()).into()
    }
}

/// All mount points of a base that were made or are guarded. The key is the scope, or nothing
/// for the host's own trees, or [`INSIDE`], and the escaped path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct MountPointRegistry {
    #[serde(default)]
    version: u32,
    /// During which run of the machine it was so.
    boot: String,
    pub(crate) points: BTreeMap<String, MountPoint>,
}

pub(crate) fn lock(base: &Base) -> Result<Lock, Error> {
    // One for the base: the host's trees are the same in all its scopes.
    Lock::take(&base.path.join("live/mount-points.lock"), Mode::Exclusive)
}

/// The registry of the base at `base`.
pub(crate) fn record(base: &Path, persistent: bool) -> Record {
    let name = Path::new("mount-points.json");
    Record::new(base, name, &Path::new(RECORDS).join(name), persistent)
}

/// The mount points that were made in the layers of `scope` for its members that live.
pub(crate) fn made_for_members(base: &Base, scope: &Scope) -> Result<Vec<PathBuf>, Error> {
    let alive = members(&ScopePaths::new(base, scope))?;
    let registry: Option<MountPointRegistry> = record(&base.path, base.persistent).read(VERSION)?;
    let Some(registry) = registry else {
        return Ok(Vec::new());
    };
    let own = format!("{} ", scope.as_str());
    let points = registry.points.iter().filter(|(key, point)| {
        let mut users = point.users.get(scope.as_str()).into_iter().flatten();
        key.starts_with(&own) && point.made.is_some() && users.any(|id| alive.contains(id))
    });
    Ok(points.map(|(_, point)| point.path()).collect())
}

impl MountPointRegistry {
    /// Opens the registry `record`, in the host's namespace; the caller holds the [`lock`]. What
    /// was made on the host before the machine started is removed.
    pub(crate) fn open(record: &Record) -> Result<Self, Error> {
        let mut registry: Self = record.read(VERSION)?.unwrap_or_default();
        registry.version = VERSION;
        let boot = boot_id()?;
        if registry.boot != boot {
            registry.drop_stale_entries()?;
            registry.boot = boot;
        }
        registry.remove_unused()?;
        Ok(registry)
    }

    /// The directories on the host that are there only because Reaper has made them.
    pub(crate) fn made_on_host(record: &Record) -> Result<Vec<PathBuf>, Error> {
        let registry: Self = record.read(VERSION)?.unwrap_or_default();
        if registry.boot != boot_id()? {
            return Ok(Vec::new());
        }
        let is_own = |(key, point): &(&String, &MountPoint)| {
            key.starts_with(' ') && point.made == Some(Kind::Directory)
        };
        let own = registry.points.iter().filter(is_own);
        Ok(own.map(|(_, point)| point.path()).collect())
    }

    pub(crate) fn entry(&mut self, key: String, path: &Path) -> &mut MountPoint {
        let point = self.points.entry(key).or_default();
        point.path = escape(path.as_os_str());
        point
    }

    /// The keys of some of the points, what lies deeper first.
    pub(crate) fn keys(&self, wanted: impl Fn(&str, &MountPoint) -> bool) -> Vec<String> {
        let points = self.points.iter();
        let mut keys: Vec<String> = points
            .filter(|(key, point)| wanted(key, point))
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.matches('/').count()));
        keys
    }

    /// Removes what was made and has no users left: containers of another base used it when the last one
    /// of this base ended.
    fn remove_unused(&mut self) -> Result<(), Error> {
        for key in self.keys(|key, point| is_shared(key) && point.users.is_empty()) {
            let Some(point) = self.points.get(&key) else {
                continue;
            };
            let removed = match point.made {
                Some(kind) => remove(&point.path(), kind)?,
                None => Removal::Done,
            };
            if removed == Removal::Done {
                self.points.remove(&key);
            }
        }
        Ok(())
    }

    /// Drops entries from before the last boot: their users have ended and nothing is mounted.
    ///
    /// Mount points on the host are removed here. Mount points inside a scope's layers are removed
    /// when the scope is next mounted.
    fn drop_stale_entries(&mut self) -> Result<(), Error> {
        for point in self.points.values_mut() {
            point.guarded.clear();
        }
        for key in self.keys(|key, _| is_shared(key)) {
            let Some(point) = self.points.remove(&key) else {
                continue;
            };
            let path = point.path();
            // These trees are new with each boot: what is there now was not made by Reaper.
            let is_new = HOST_TREES.iter().any(|tree| path.starts_with(tree));
            if let Some(kind) = point.made.filter(|_| !is_new) {
                remove(&path, kind)?;
            }
        }
        Ok(())
    }
}
