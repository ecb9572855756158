//! A view that waits where a test wants it to, so that something can be killed there.

use std::path::Path;

use reaper_overlay::{Error, FilesystemIsolation, HostFilesystem, View, ViewRequest};

/// The rootfs of a request for a view that a quota of a project limits.
pub(crate) const LIMITED: &str = "/limited-by-project";

/// The host's root, whose step named by the request's rootfs, a FIFO called after it, waits until
/// somebody has opened that FIFO for writing and closed it.
pub(crate) struct Stalling;

fn stall(request: &ViewRequest, step: &str) {
    if let Some(fifo) = &request.rootfs
        && fifo.file_name() == Some(step.as_ref())
    {
        wait(fifo);
    }
}

fn wait(fifo: &Path) {
    let _ = std::fs::read(fifo);
}

impl FilesystemIsolation for Stalling {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        stall(request, "prepare");
        let plain = request.clone().with_rootfs(None);
        let view = HostFilesystem.prepare(&plain)?;
        Ok(Box::new(StallingView {
            view,
            request: request.clone(),
        }))
    }

    fn cleanup(&self, request: &ViewRequest) -> Result<(), Error> {
        HostFilesystem.cleanup(request)
    }
}

struct StallingView {
    view: Box<dyn View>,
    request: ViewRequest,
}

impl View for StallingView {
    fn enter_init(&self) -> Result<(), Error> {
        stall(&self.request, "enter");
        self.view.enter_init()
    }

    fn enter_exec(&self) -> Result<(), Error> {
        stall(&self.request, "enter");
        self.view.enter_exec()
    }

    fn keep_namespace(&mut self, pid: u32) -> Result<(), Error> {
        self.view.keep_namespace(pid)
    }

    fn is_limited_by_project(&self) -> bool {
        self.request.rootfs.as_deref() == Some(Path::new(LIMITED))
    }

    fn environment(&self) -> Vec<String> {
        self.view.environment()
    }

    fn release(&mut self) -> Result<(), Error> {
        self.view.release()
    }

    fn undo(&mut self) -> Result<(), Error> {
        self.view.undo()
    }
}
