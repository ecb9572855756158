//! The filesystem of a container whose runtime makes all of it but the image.

use std::path::PathBuf;

use reaper_overlay::{
    Error, FilesystemIsolation, RootfsMount, View, ViewRequest, mount_rootfs, unmount_rootfs,
};

/// Mounts the image's root filesystem, in the host's namespace, for the runtime to find.
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
            (None, false) => return Err(Error::NoImage),
        };
        mount_rootfs(&mounts, &at)?;
        Ok(Box::new(Mounted { mounts, at }))
    }

    fn collect(&self, request: &ViewRequest) -> Result<(), Error> {
        match &request.rootfs {
            Some(at) => unmount_rootfs(&request.rootfs_mounts, at),
            None => Ok(()),
        }
    }
}

impl View for Mounted {
    /// The runtime enters, no process of ours.
    fn enter(&self, _first: bool) -> Result<(), Error> {
        Ok(())
    }

    fn entered(&mut self, _pid: u32) -> Result<(), Error> {
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        unmount_rootfs(&self.mounts, &self.at)?;
        self.mounts.clear();
        Ok(())
    }
}
