//! The host's filesystem, as it is.

use crate::{Error, FilesystemIsolation, View, ViewRequest};

/// No isolation: processes see and change the host's filesystem. Volumes are not mounted, since
/// that would change the host for everybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostRoot;

struct HostView;

impl FilesystemIsolation for HostRoot {
    fn prepare(&self, _request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        Ok(Box::new(HostView))
    }

    fn collect(&self, _request: &ViewRequest) -> Result<(), Error> {
        Ok(())
    }
}

impl View for HostView {
    fn enter(&self, _first: bool) -> Result<(), Error> {
        Ok(())
    }

    fn entered(&mut self, _pid: u32) -> Result<(), Error> {
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
