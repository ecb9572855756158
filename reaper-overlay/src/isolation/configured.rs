//! The isolation that the configuration names.

use super::{host_root::HostFilesystem, shared_overlay::SharedOverlay};
use crate::contract::{Error, FilesystemIsolation, GarbageCollection, View, ViewRequest};

/// [`SharedOverlay`] where the request's overlay is enabled, [`HostFilesystem`] where it is not.
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
            &HostFilesystem
        }
    }
}

impl FilesystemIsolation for Configured {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        self.choose(request).prepare(request)
    }

    fn cleanup(&self, request: &ViewRequest) -> Result<(), Error> {
        self.choose(request).cleanup(request)
    }

    fn remove(&self, request: &ViewRequest) -> Result<(), Error> {
        self.choose(request).remove(request)
    }

    fn gc(&self, request: &ViewRequest) -> Option<GarbageCollection> {
        self.choose(request).gc(request)
    }
}
