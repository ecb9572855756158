//! What a container is to be.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf};

use reaper_overlay::ViewRequest;
use reaper_spec::{CgroupsPath, ContainerId, ProcessSpec};

use super::values::MonitorOptions;
use crate::io::StdioRequest;

/// A container to be created.
#[derive(Debug)]
pub struct ContainerConfig {
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
    /// Descriptors that its init process gets from number 3 on (`--preserve-fds`).
    pub preserve_fds: Vec<OwnedFd>,
    /// What its monitor does in addition to watching it.
    pub monitor: MonitorOptions,
    /// Annotations for its record. An [`Engine`](crate::Engine) stores them; executors ignore them.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerConfig {
    /// A container for `process` that has no bundle, no volumes and no streams (`/dev/null`), and
    /// everything else as it is by default. Its fields are there to be changed.
    pub fn new(id: ContainerId, process: ProcessSpec) -> Self {
        Self {
            bundle: PathBuf::from("/"),
            view: ViewRequest::new(id.clone(), process.cwd.clone()),
            id,
            process,
            cgroups_path: None,
            stdio: StdioRequest::default(),
            preserve_fds: Vec::new(),
            monitor: MonitorOptions::default(),
            annotations: BTreeMap::new(),
        }
    }
}
