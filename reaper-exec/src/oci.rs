//! The executor that drives an OCI runtime.

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use reaper_spec::{ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity};

use crate::{
    executor::{
        ContainerState, CreateRequest, CreatedProcess, Error, ExecRequest, Executor, ProcessInfo,
        Result, Stats, Target,
    },
    host::HostExecutor,
    protocol::RuntimeConfig,
    signal::Signal,
};

/// Where a runtime is looked for in a program without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
/// * What the runtime refuses is an [`Error::Setup`] with the last error in its log.
/// * A program that cannot be executed is an [`Error::Execve`] of `create` where the runtime looks
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
        find(runtime)
    }

    /// The program itself. It is looked for at each creation: it may be installed meanwhile.
    fn program(&self) -> Result<PathBuf> {
        find(&self.runtime).ok_or_else(|| Error::Setup {
            step: format!("find the OCI runtime {}", self.runtime.display()),
            message: "there is no such program".to_owned(),
            errno: Some(libc::ENOENT),
        })
    }
}

fn find(runtime: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if runtime.components().count() > 1 || runtime.is_absolute() {
        let path = std::path::absolute(runtime).ok()?;
        return Some(path).filter(is_program);
    }
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    env::split_paths(&path)
        .map(|folder| folder.join(runtime))
        .find(is_program)
}

#[async_trait]
impl Executor for OciExecutor {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        let runtime_config = RuntimeConfig {
            program: self.program()?,
            bundle: request.container.bundle.clone(),
        };
        self.monitors.make(request, Some(runtime_config)).await
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

    async fn wait(&self, target: &Target) -> Result<Exit> {
        self.monitors.wait(target).await
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
