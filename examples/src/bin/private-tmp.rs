//! A custom isolation: the host as it is, but for a `/tmp` of the container's own.
//! `private-tmp sh -c 'echo hi >/tmp/file; ls /tmp'`, as root.
//!
//! `FilesystemIsolation` makes a view in the monitor, and `View::enter` moves the forked child
//! into it. An exec'd process enters later, and has to see exactly the same mounts.

use std::{error::Error, fs::File, path::PathBuf, process::ExitCode, sync::Arc};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use reaper_examples::foreground;
use reaper_exec::{Engine, HostExecutor, io::StandardBinder, monitor};
use reaper_overlay::{Error as ViewError, FilesystemIsolation, View, ViewRequest};
use reaper_state::{MemoryStore, StateRoot};

/// Containers have a `/tmp` of their own, empty at first and gone with them.
struct PrivateTmp;

/// One container's view.
struct TmpView {
    cwd: PathBuf,
    /// The mounts that the first process has made, for those that are exec'd.
    namespace: Option<File>,
}

impl FilesystemIsolation for PrivateTmp {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, ViewError> {
        // Fail closed: whoever asks for volumes must not run without them.
        if let Some(volume) = request.mounts.first() {
            let destination = volume.destination.clone();
            return Err(ViewError::MountDestination { destination });
        }
        Ok(Box::new(TmpView {
            cwd: request.cwd.clone(),
            namespace: None,
        }))
    }

    /// The kernel removes the mounts with the last process: nothing stays on the node.
    fn cleanup(&self, _request: &ViewRequest) -> Result<(), ViewError> {
        Ok(())
    }
}

impl View for TmpView {
    fn enter_init(&self) -> Result<(), ViewError> {
        const NONE: Option<&str> = None;
        at("copy the mounts of", "/", unshare(CloneFlags::CLONE_NEWNS))?;
        // What the node mounts later arrives here, and nothing goes back.
        let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        at(
            "hold back changes of",
            "/",
            mount(NONE, "/", NONE, slave, NONE),
        )?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        at(
            "mount on",
            "/tmp",
            mount(
                Some("tmpfs"),
                "/tmp",
                Some("tmpfs"),
                flags,
                Some("mode=1777"),
            ),
        )?;
        at("change to", &self.cwd, std::env::set_current_dir(&self.cwd))
    }

    fn enter_exec(&self) -> Result<(), ViewError> {
        if let Some(namespace) = &self.namespace {
            let entered = setns(namespace, CloneFlags::CLONE_NEWNS);
            at("enter the mounts of", "/tmp", entered)?;
        }
        at("change to", &self.cwd, std::env::set_current_dir(&self.cwd))
    }

    fn keep_namespace(&mut self, pid: u32) -> Result<(), ViewError> {
        let path = format!("/proc/{pid}/ns/mnt");
        self.namespace = Some(at("open", &path, File::open(&path))?);
        Ok(())
    }

    fn release(&mut self) -> Result<(), ViewError> {
        self.namespace = None;
        Ok(())
    }
}

/// An error says what was being done, and to what.
fn at<T, E: Into<std::io::Error>>(
    operation: &'static str,
    path: impl Into<PathBuf>,
    result: Result<T, E>,
) -> Result<T, ViewError> {
    result.map_err(|source| ViewError::System {
        operation,
        path: path.into(),
        source: source.into(),
    })
}

fn main() -> ExitCode {
    monitor::run_if_monitor(|| monitor::MonitorConfig::new(PrivateTmp, StandardBinder::new()));
    run().unwrap_or_else(|error| {
        eprintln!("private-tmp: {error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let root = StateRoot::new(folder.path());
    let engine = Engine::new(
        HostExecutor::new(root.clone()),
        Arc::new(MemoryStore::new()),
        root,
    );
    let container = foreground::container("private-tmp", std::env::args().skip(1))?;
    foreground::run(&engine, container)
}
