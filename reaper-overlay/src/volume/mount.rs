//! Mounting opened volumes in the calling process's namespace.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use reaper_spec::Mount;
use rustix::{
    fs::{CWD, Mode, OFlags, open},
    mount::{MountFlags, MoveMountFlags, mount, move_mount},
};

use super::{
    copy_up::copy_up,
    device, nested,
    open::{Content, Volume, apply_options, expect_same, open_source},
    options::{CONTEXTS, Options},
};
use crate::{
    contract::{Context, Error},
    linux::handle::{Handle, fd_link},
    mount::{
        attributes,
        bind::bind,
        interface::{Interface, Recursion},
    },
};

/// With both reasons why a path may lead to something else in the container's namespace.
const FIND_AGAIN: &str = "find again, since it was replaced meanwhile or the host's mounts are not shared \
                          (`mount --make-rshared /`),";

/// Finds what `volumes` bind from paths, in a namespace that shows the host's root and before the
/// first of them is mounted, which may cover the others.
pub(crate) fn find(volumes: &[Volume]) -> Result<Vec<Option<OwnedFd>>, Error> {
    volumes.iter().map(Volume::find).collect()
}

impl Volume {
    /// Finds what is bound from a path, in a namespace that shows the host's root.
    fn find(&self) -> Result<Option<OwnedFd>, Error> {
        let path = match &self.content {
            Content::Tree(_) | Content::New(_) | Content::Device(_) => return Ok(None),
            Content::Path(path) => path,
            Content::Image(image) => {
                image.mount()?;
                &image.root
            }
        };
        let found = open_source(path)?;
        if let Some(source) = &self.source {
            expect_same(source.as_fd(), found.as_fd(), path, FIND_AGAIN)?;
        }
        Ok(Some(found))
    }

    /// Mounts it in the calling process's namespace; `found` is what [`find`] has found.
    pub(crate) fn mount(&self, found: Option<&OwnedFd>) -> Result<(), Error> {
        let to = &self.destination;
        if let Some(outer) = &self.inside {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = open(outer, flags, Mode::empty()).context("open", outer)?;
            let root = root.as_fd();
            nested::make(root, outer, to, self.directory, &mut |_| Ok(()))?;
        }
        let below = match self.options.copy_up {
            true => Handle::of(to)?,
            false => None,
        };
        match (&self.content, found) {
            (Content::Tree(tree), _) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                let follow = || {
                    let flags = flags | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                    move_mount(tree, "", CWD, to, flags)
                };
                let moved = match self.stays_on_link && to.is_symlink() {
                    true => move_mount(tree, "", CWD, to, flags).or_else(|_| follow()),
                    false => follow(),
                };
                moved.map_err(io::Error::from)
            }
            (Content::Device(device), _) => device::mount_at(device, to),
            (Content::New(mount), _) => mount_filesystem(mount, &self.options, to),
            (Content::Path(_) | Content::Image(_), Some(found)) => {
                let from = fd_link(found);
                let recursion = self.options.bind.unwrap_or(Recursion::Alone);
                bind(&from, to, recursion).map_err(io::Error::from)
            }
            (Content::Path(_) | Content::Image(_), None) => Err(io::ErrorKind::NotFound.into()),
        }
        .context("mount the volume on", to)?;
        if let Some(below) = below {
            copy_up(below, to)?;
        }
        match (&self.content, self.interface) {
            (Content::Tree(_), Interface::Attributes) if !self.options.copy_up => Ok(()),
            _ => apply_options(&self.options, to, |recursion, attr| {
                attributes::change(self.interface, to, recursion, attr)
            }),
        }
    }
}

fn mount_filesystem(wanted: &Mount, options: &Options, to: &Path) -> io::Result<()> {
    let kind = wanted.typ.as_deref().unwrap_or_default();
    let source = wanted.source.as_deref().unwrap_or(Path::new(kind));
    let data: Vec<String> = options
        .data
        .iter()
        .map(|(key, value)| match value {
            Some(value) if CONTEXTS.contains(&key.as_str()) => format!("{key}=\"{value}\""),
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect();
    let data = std::ffi::CString::new(data.join(","))?;
    Ok(mount(
        source,
        to,
        kind,
        MountFlags::empty(),
        data.as_c_str(),
    )?)
}
