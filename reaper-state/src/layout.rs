//! Where things are below a state root.

use std::path::{Path, PathBuf};

use reaper_spec::ContainerId;

/// A state root: a folder with one folder for each container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRoot(PathBuf);

impl StateRoot {
    /// The root at `path`. Nothing is read or made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The root that the shim uses for a containerd namespace: `ns/NAMESPACE` below this one.
    #[must_use]
    pub fn containerd_namespace(&self, namespace: &str) -> Self {
        Self(self.0.join("ns").join(namespace))
    }

    /// The database of a store that keeps the root's records in one. No container's id begins
    /// with a dot.
    pub fn database(&self) -> PathBuf {
        self.0.join(".state.db")
    }

    /// Where the root is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of a container.
    pub fn container(&self, id: &ContainerId) -> ContainerDir {
        ContainerDir(self.0.join(id.as_str()))
    }
}

/// The folder of one container, mode 0700.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDir(PathBuf);

impl ContainerDir {
    /// The folder at `path`. Nothing is read or made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The record that the store keeps.
    pub fn state_file(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// The init process's pid in decimal, for scripts.
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// The init process's end, written by the monitor before any client is told.
    pub fn exit_file(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// What the monitor was asked to make: the client that finds it killed cleans up by this.
    pub fn cleanup_file(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    /// The monitor's socket. Its path may be too long for `sockaddr_un`: bind and connect by a
    /// descriptor of the folder.
    pub fn socket(&self) -> PathBuf {
        self.0.join("monitor")
    }
}
