//! Mounting opened volumes in the calling process's namespace.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use reaper_spec::Mount;
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use super::{
    copy_up::copy_up,
    device, nested,
    open::{Content, Volume, apply_options, expect_same, open_source},
    options::{CONTEXTS, Options},
};
use crate::{
    contract::{Context, Error},
    linux::{
        handle::{Handle, fd_link},
        mount_point::{self, move_to},
        resolve::{in_view, parent_of},
    },
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
        const MOUNT: &str = "mount the volume on";
        let to = &self.destination;
        if let Some(outer) = &self.inside {
            let root = mount_point::find(outer)?;
            nested::make(root.as_fd(), outer, to, self.directory, &mut |_| Ok(()))?;
        }
        let (dir, name) = parent_of(to)?;
        let find = || {
            let found = Handle::at(dir.as_fd(), name).context(MOUNT, to)?;
            found.ok_or(Errno::NOENT).context(MOUNT, to)
        };
        let place = find()?;
        if place.metadata().is_symlink() && !self.stays_on_link {
            // It was resolved: the link is of another process that may write there.
            return Err(Errno::LOOP).context(MOUNT, to);
        }
        self.mount_on(&place, found).context(MOUNT, to)?;
        // From here on it is what is mounted there.
        let mounted = find()?;
        if self.options.copy_up {
            copy_up(place, mounted.as_fd())?;
        }
        match (&self.content, self.interface) {
            (Content::Tree(_), Interface::Attributes) if !self.options.copy_up => Ok(()),
            _ => apply_options(&self.options, to, |recursion, attr| {
                attributes::change(self.interface, mounted.as_fd(), recursion, attr)
            }),
        }
    }

    fn mount_on(&self, place: &Handle, found: Option<&OwnedFd>) -> io::Result<()> {
        match (&self.content, found) {
            (Content::Tree(tree), _) => {
                let moved = move_to(tree.as_fd(), place.as_fd());
                if moved.is_err() && place.metadata().is_symlink() {
                    let target = in_view::open(&self.destination)?;
                    return Ok(move_to(tree.as_fd(), target.as_fd())?);
                }
                Ok(moved?)
            }
            (Content::Device(device), _) => device::mount_at(device, place.as_fd()),
            (Content::New(mount), _) => mount_filesystem(mount, &self.options, &place.link()),
            (Content::Path(_) | Content::Image(_), Some(found)) => {
                let recursion = self.options.bind.unwrap_or(Recursion::Alone);
                Ok(bind(&fd_link(found), &place.link(), recursion)?)
            }
            (Content::Path(_) | Content::Image(_), None) => Err(io::ErrorKind::NotFound.into()),
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
