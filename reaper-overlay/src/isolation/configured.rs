//! The isolation that the configuration names.

use super::{host_root::HostRoot, shared_overlay::SharedOverlay};
use crate::contract::{Error, FilesystemIsolation, Housekeeping, View, ViewRequest};

/// [`SharedOverlay`] where the request's overlay is enabled, [`HostRoot`] where it is not.
///
/// Only the node's admin decides that: the request carries the node's configuration.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    overlay: SharedOverlay,
}

impl Configured {
    /// Uses `overlay` where the overlay is enabled.
    pub fn new(overlay: SharedOverlay) -> Self {
        Self { overlay }
    }

    fn choose(&self, request: &ViewRequest) -> &dyn FilesystemIsolation {
        if request.overlay.enabled {
            &self.overlay
        } else {
            &HostRoot
        }
    }
}

impl FilesystemIsolation for Configured {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        self.choose(request).prepare(request)
    }

    fn collect(&self, request: &ViewRequest) -> Result<(), Error> {
        self.choose(request).collect(request)
    }

    fn forget(&self, request: &ViewRequest) -> Result<(), Error> {
        self.choose(request).forget(request)
    }

    fn housekeeping(&self, request: &ViewRequest) -> Option<Housekeeping> {
        self.choose(request).housekeeping(request)
    }
}
