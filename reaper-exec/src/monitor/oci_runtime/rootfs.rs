//! The isolation of containers that a runtime makes: it mounts the image, the runtime does the
//! rest.

use std::path::PathBuf;

use reaper_overlay::{
    Error, FilesystemIsolation, RootfsMount, View, ViewRequest, mount_rootfs, unmount_rootfs,
};

/// Mounts the image's root filesystem in the host's mount namespace, where the runtime looks for
/// it.
pub(crate) struct Image;

struct Mounted {
    mounts: Vec<RootfsMount>,
    at: PathBuf,
}

impl FilesystemIsolation for Image {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        let mounts = request.rootfs_mounts.clone();
        let at = match (&request.rootfs, mounts.is_empty()) {
            (Some(at), _) => at.clone(),
            (None, true) => PathBuf::new(),
            (None, false) => return Err(Error::ImageMissing),
        };
        mount_rootfs(&mounts, &at)?;
        Ok(Box::new(Mounted { mounts, at }))
    }

    fn cleanup(&self, request: &ViewRequest) -> Result<(), Error> {
        match &request.rootfs {
            Some(at) => unmount_rootfs(&request.rootfs_mounts, at),
            None => Ok(()),
        }
    }
}

impl View for Mounted {
    /// Does nothing: the runtime's process enters the container, none of the monitor's.
    fn enter_init(&self) -> Result<(), Error> {
        Ok(())
    }

    fn enter_exec(&self) -> Result<(), Error> {
        Ok(())
    }

    fn keep_namespace(&mut self, _pid: u32) -> Result<(), Error> {
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        unmount_rootfs(&self.mounts, &self.at)?;
        self.mounts.clear();
        Ok(())
    }
}
