//! Where a container's cgroup goes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A `linux.cgroupsPath`, resolved to a path relative to the root of a cgroup hierarchy.
///
/// Both of the forms in use are read: cgroupfs (`/kubepods/besteffort/podX/ID`) and systemd's
/// (`SLICE:PREFIX:NAME`, which becomes the slice's folders and `PREFIX-NAME.scope` in it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupsPath(PathBuf);

impl CgroupsPath {
    /// The path below a hierarchy's root: relative, without `..`.
    pub fn relative(&self) -> &Path {
        &self.0
    }
}
