//! Finding a mount point for each volume.

use std::{
    ffi::OsStr,
    fs,
    os::fd::{AsRawFd, BorrowedFd},
    path::PathBuf,
};

use crate::{
    contract::{Context, Error, Scope, ViewRequest},
    linux::mount_point::Kind,
    mount::interface::Interface,
    scope::{
        keep::{Enter, Pin},
        mount_points::{self, Owner},
    },
    store::base::Base,
    volume::{nested, open::open_all, opened::Volume},
};

/// Opens the volumes of `request` and makes their mount points in the scope.
pub(crate) fn open(
    request: &ViewRequest,
    host_paths: &[PathBuf],
    base: &Base,
    scope: &Scope,
    pin: &Pin,
) -> Result<Vec<Volume>, Error> {
    let interface = match pin.keeps_host() {
        true => Interface::Classic,
        false => Interface::with_trees(),
    };
    let mut volumes = open_all(request, interface)?;
    let owner = Owner::Scope(scope);
    let enter = || pin.enter();
    place(&mut volumes, request, base, owner, Some(&enter), host_paths)?;
    Ok(volumes)
}

/// Finds or makes the mount points of `volumes`, for `owner`.
pub(crate) fn place(
    volumes: &mut [Volume],
    request: &ViewRequest,
    base: &Base,
    owner: Owner<'_>,
    enter: Option<Enter<'_>>,
    host_paths: &[PathBuf],
) -> Result<(), Error> {
    if volumes.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = volumes
        .iter()
        .map(|v| (v.destination.clone(), v.directory))
        .collect();
    let id = request.unique_id();
    let places = mount_points::acquire(base, owner, &id, enter, host_paths, &wanted)?;
    for (at, place) in places.into_iter().enumerate() {
        let made = match place.inside {
            Some(outer) => {
                let mut note = |parent: BorrowedFd<'_>, name: &OsStr, missing: Option<Kind>| {
                    // A file system of the volume's own is nowhere on the host, and goes with it.
                    if !volumes[outer].is_on_host() {
                        return Ok(());
                    }
                    let path = on_host(parent, name)?;
                    mount_points::use_inside(base, owner, &id, &path, missing)
                };
                let (to, directory) = (&place.path, volumes[at].directory);
                let outside = &volumes[outer].destination;
                match volumes[outer].writable() {
                    Some(root) => nested::make(root, outside, to, directory, &mut note),
                    None => {
                        let outside = outside.clone();
                        volumes[at].make_inside(outside);
                        Ok(())
                    }
                }
            }
            None => Ok(()),
        };
        if let Err(error) = made {
            mount_points::release(base, owner, &id)?;
            return Err(error);
        }
        volumes[at].destination = place.path;
    }
    Ok(())
}

/// The path on the host of what is called `name` in `parent`.
fn on_host(parent: BorrowedFd<'_>, name: &OsStr) -> Result<PathBuf, Error> {
    let link = format!("/proc/self/fd/{}", parent.as_raw_fd());
    let parent = fs::read_link(&link).context("follow", link)?;
    Ok(parent.join(name))
}
