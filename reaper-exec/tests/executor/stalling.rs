//! A view that waits where a test wants it to, so that something can be killed there.

use std::path::Path;

use reaper_overlay::{Error, FilesystemIsolation, HostRoot, View, ViewRequest};

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
        let plain = ViewRequest {
            rootfs: None,
            ..request.clone()
        };
        let view = HostRoot.prepare(&plain)?;
        Ok(Box::new(StallingView {
            view,
            request: request.clone(),
        }))
    }

    fn collect(&self, request: &ViewRequest) -> Result<(), Error> {
        HostRoot.collect(request)
    }
}

struct StallingView {
    view: Box<dyn View>,
    request: ViewRequest,
}

impl View for StallingView {
    fn enter(&self, first: bool) -> Result<(), Error> {
        stall(&self.request, "enter");
        self.view.enter(first)
    }

    fn entered(&mut self, pid: u32) -> Result<(), Error> {
        self.view.entered(pid)
    }

    fn environment(&self) -> Vec<String> {
        self.view.environment()
    }

    fn release(&mut self) -> Result<(), Error> {
        self.view.release()
    }
}
