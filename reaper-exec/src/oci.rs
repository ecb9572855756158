//! The executor that drives an OCI runtime.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use reaper_spec::{ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity, Resources};

use crate::{
    executor::{
        ContainerState, CreateRequest, CreatedProcess, ExecRequest, Executor, ProcessInfo, Result,
        Stats, Target,
    },
    host::{HostExecutor, runtime},
    signal::Signal,
};

/// Has an OCI runtime (runc, crun, or any other program with their command line) make the
/// containers: real ones, with the namespaces, mounts and limits that the bundle's `config.json`
/// asks for. The runtime reads that file itself, so all that it knows of OCI counts.
///
/// Each container has a monitor, as with [`HostExecutor`]: it calls the runtime, waits for the
/// container's processes, and outlives its starter. It mounts the image
/// ([`ViewRequest::rootfs_mounts`](reaper_overlay::ViewRequest::rootfs_mounts)) on the bundle's
/// root; the rest of the view is the runtime's to make, and an isolation is not asked. The
/// runtime's own state is in the folder `runtime` of the container's.
///
/// Beside the contract of [`Executor`]:
/// * What the runtime refuses is an [`Error::Setup`](crate::Error::Setup) with the last error in its log.
/// * A program that cannot be executed is an [`Error::Execve`](crate::Error::Execve) of `create` where the runtime looks
///   for it then, as runc and crun do.
/// * Exec'd processes are created by `start`, which returns their identity. Until then they are a
///   description, which can be killed and deleted as any other.
/// * Descriptors cannot be preserved for processes.
#[derive(Debug)]
pub struct OciExecutor {
    monitors: HostExecutor,
    runtime: PathBuf,
}

impl OciExecutor {
    /// Containers made by `runtime`, the path of a program or its name in `PATH`, and watched as
    /// `monitors` is set up to: its root, namespace, monitor program and subreaper are used.
    pub fn new(monitors: HostExecutor, runtime: impl Into<PathBuf>) -> Self {
        Self {
            monitors,
            runtime: runtime.into(),
        }
    }

    /// Where the program `runtime`, a path or a name in `PATH`, is now; `None` if there is none.
    pub fn find(runtime: &Path) -> Option<PathBuf> {
        runtime::find(runtime)
    }
}

#[async_trait]
impl Executor for OciExecutor {
    async fn create(&self, mut request: CreateRequest) -> Result<CreatedProcess> {
        let runtime = &mut request.container.runtime;
        runtime.get_or_insert_with(|| self.runtime.clone());
        self.monitors.create(request).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        self.monitors.exec(id, exec, request).await
    }

    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        self.monitors.start(target).await
    }

    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        self.monitors.kill(target, signal, all).await
    }

    async fn kill_group(&self, target: &Target, signal: Signal) -> Result<()> {
        self.monitors.kill_group(target, signal).await
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        self.monitors.wait(target).await
    }

    async fn oom_kills(&self, id: &ContainerId, seen: u64) -> Result<u64> {
        self.monitors.oom_kills(id, seen).await
    }

    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        self.monitors.update(id, resources).await
    }

    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        self.monitors.resize_pty(target, size).await
    }

    async fn close_stdin(&self, target: &Target) -> Result<()> {
        self.monitors.close_stdin(target).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.monitors.pause(id).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.monitors.resume(id).await
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        self.monitors.pids(id).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        self.monitors.stats(id).await
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        self.monitors.state(id).await
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        self.monitors.delete(target).await
    }
}
