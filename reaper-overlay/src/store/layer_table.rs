//! The layers of a scope: which directory holds the changes to which mount of the host.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    host_snapshot::{HostSnapshot, QuickCheck},
    paths::ScopePaths,
};
use crate::{
    contract::Error,
    linux::mountinfo::{escape, unescape},
};

/// The version of `layers.json` that this crate writes, and the newest that it reads.
const VERSION: u32 = 1;

/// What is known of a scope's layers, on disk beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    version: u32,
    /// When the scope came into being, in seconds since 1970.
    pub(crate) created: u64,
    /// The mount of the host, escaped as in mountinfo, and the directory of its layer.
    directories: BTreeMap<String, u32>,
    /// The mounts that are bound read-only, because overlay refused them; escaped as well.
    pub(crate) read_only: Vec<String>,
    /// The mounts that are shown as they are, because they could not be protected; likewise.
    #[serde(default)]
    pub(crate) unprotected: Vec<String>,
    /// Whether the mounts of the view are locked, so that workloads cannot take them away.
    pub(crate) locked: bool,
    /// Whether the namespace still has the host's root, with the view beside it.
    #[serde(default)]
    pub(crate) keeps_host: bool,
    /// What the lower layers looked like when they were last mounted.
    #[serde(rename = "stamps")]
    pub(crate) snapshot: HostSnapshot,
}

/// What a member needs to know of the table.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TableHeader {
    pub(crate) locked: bool,
    #[serde(default)]
    pub(crate) keeps_host: bool,
    #[serde(rename = "stamps")]
    pub(crate) snapshot: QuickCheck,
}

impl TableHeader {
    /// Reads it from the table of a scope; `None` if the scope does not exist.
    pub(crate) fn read(paths: &ScopePaths) -> Result<Option<Self>, Error> {
        paths.layers().read(VERSION)
    }
}

/// One layer's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The mount of the host.
    pub(crate) mount: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// What is hidden, for comparisons: found again after a reboot.
    pub(crate) mask: PathBuf,
    /// The same, to be mounted: overlay refuses a lower layer that lies inside another one, so it
    /// is never on a filesystem of the host.
    pub(crate) live_mask: PathBuf,
    /// Where an older Reaper wrote it.
    older_mask: PathBuf,
}

impl Table {
    pub(crate) fn new() -> Self {
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        Self {
            version: VERSION,
            created,
            directories: BTreeMap::new(),
            read_only: Vec::new(),
            unprotected: Vec::new(),
            locked: false,
            keeps_host: false,
            snapshot: HostSnapshot::default(),
        }
    }

    /// Reads the table of a scope; `None` if the scope does not exist.
    pub(crate) fn read(paths: &ScopePaths) -> Result<Option<Self>, Error> {
        paths.layers().read(VERSION)
    }

    pub(crate) fn write(&self, paths: &ScopePaths) -> Result<(), Error> {
        paths.layers().write(self)
    }

    /// The layers that exist, the parents' mounts before their children's.
    pub(crate) fn layers(&self, paths: &ScopePaths) -> Vec<Layer> {
        self.directories
            .iter()
            .map(|(mount, &at)| Layer::new(paths, unescape(mount.as_bytes()).into(), at))
            .collect()
    }

    /// The layer for `mount`: the one that it had before, else a new one.
    pub(crate) fn layer(&mut self, paths: &ScopePaths, mount: &Path) -> Layer {
        let next = self.directories.values().max().map_or(0, |last| last + 1);
        let at = *self
            .directories
            .entry(escape(mount.as_os_str()))
            .or_insert(next);
        Layer::new(paths, mount.to_owned(), at)
    }
}

impl Layer {
    /// The layer of masks as it was written when the scope was mounted, by whatever version.
    pub(crate) fn written_mask(&self) -> Option<&Path> {
        let places = [&self.mask, &self.older_mask];
        places
            .into_iter()
            .find(|mask| mask.exists())
            .map(PathBuf::as_path)
    }

    fn new(paths: &ScopePaths, mount: PathBuf, at: u32) -> Self {
        let dir = paths.data.join(at.to_string());
        let live_mask = paths.live_masks().join(at.to_string());
        Self {
            mount,
            upper: dir.join("upper"),
            work: dir.join("work"),
            // Its text would not fit in what a workload has filled.
            mask: match paths.is_persistent() {
                true => dir.join("mask"),
                false => live_mask.clone(),
            },
            older_mask: dir.join("mask"),
            live_mask,
        }
    }
}
