//! What an engine is asked for.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf};

use reaper_overlay::ViewRequest;
use reaper_spec::{CgroupsPath, ContainerId, ProcessSpec};

use crate::{MonitorOptions, io::StdioRequest};

/// A container to be made.
#[derive(Debug)]
pub struct NewContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its init process.
    pub process: ProcessSpec,
    /// Where its cgroup goes; `None` for `reaper/ID`.
    pub cgroups_path: Option<CgroupsPath>,
    /// What it sees of the filesystem.
    pub view: ViewRequest,
    /// Where its init process's streams go.
    pub stdio: StdioRequest,
    /// Descriptors that its init process gets from number 3 on.
    pub preserved: Vec<OwnedFd>,
    /// How its monitor relates to the caller.
    pub monitor: MonitorOptions,
    /// Kept in its record.
    pub annotations: BTreeMap<String, String>,
}
