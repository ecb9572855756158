//! The host's filesystem, to look at only.

use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_change};

use super::host_root::{self, HostView};
use crate::{
    contract::{Context, Error, FilesystemIsolation, View, ViewRequest},
    mount::{attributes, interface::Interface},
};

/// Processes see the host's filesystem and cannot change it, except below the paths listed.
///
/// Each container has a copy of the host's mounts in which all are read-only; `/proc`, `/dev` and
/// `/sys` stay as they are. Volumes are mounted as [`HostRoot`](crate::HostRoot) mounts them. A
/// process that is root with all capabilities can make its mounts writable again: like the
/// overlay it protects from accidents.
#[derive(Debug, Clone, Default)]
pub struct ReadOnlyHost {
    writable: Vec<PathBuf>,
}

/// What cannot be read-only without breaking ordinary programs.
const NOT_FILES: [&str; 3] = ["/proc", "/dev", "/sys"];

impl ReadOnlyHost {
    /// All of the host read-only but `writable` and what lies below; these have to exist.
    pub fn new(writable: Vec<PathBuf>) -> Self {
        Self { writable }
    }
}

impl FilesystemIsolation for ReadOnlyHost {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        let missing: Vec<_> = self
            .writable
            .iter()
            .filter(|path| !path.exists())
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(Error::MissingMountPoints { paths: missing });
        }
        let writable = self.writable.clone();
        let restrict = Box::new(move |interface, own: &[&Path]| {
            let own = own.iter().map(|path| path.to_path_buf());
            let writable: Vec<_> = own.chain(writable.iter().cloned()).collect();
            make_read_only(interface, &writable)
        });
        Ok(Box::new(HostView::new(request, Some(restrict))?))
    }

    fn collect(&self, request: &ViewRequest) -> Result<(), Error> {
        host_root::collect(request)
    }
}

/// Makes the mounts of the calling process's namespace read-only.
fn make_read_only(interface: Interface, writable: &[PathBuf]) -> Result<(), Error> {
    let not_files = NOT_FILES
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.is_dir());
    let writable: Vec<PathBuf> = not_files.chain(writable.iter().cloned()).collect();
    // What lies in another one comes with it.
    let outermost = writable.iter().enumerate().filter(|(at, path)| {
        let others = writable.iter().enumerate().filter(|(other, _)| other != at);
        !others
            .into_iter()
            .any(|(other, dir)| path.starts_with(dir) && (*path != dir || other < *at))
    });
    let outermost: Vec<&Path> = outermost.map(|(_, path)| path.as_path()).collect();
    attributes::make_read_only_but(interface, &outermost)?;
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", private).context("make a slave of", "/")
}
