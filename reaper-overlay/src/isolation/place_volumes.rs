//! Finding a mount point for each volume.

use std::{
    ffi::OsStr,
    fs,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use crate::{
    contract::{Context, Error},
    linux::{handle::fd_link, mount_point::Kind},
    scope::{
        keep::ScopeNamespace,
        mount_points::{MountPointUser, Requested},
    },
    volume::{nested, open::Volume, request::check_place},
};

/// Finds or makes the mount points of `volumes` for `user`. `namespace` is the scope's.
///
/// A mount point that lies in an earlier volume is made in that one: before it is mounted where the
/// volume exists already, else when both are mounted.
pub(crate) fn place(
    volumes: &mut [Volume],
    user: MountPointUser<'_>,
    namespace: Option<&ScopeNamespace>,
    host_paths: &[PathBuf],
) -> Result<(), Error> {
    if volumes.is_empty() {
        return Ok(());
    }
    let requested = volumes.iter().map(|volume| Requested {
        destination: &volume.destination,
        directory: volume.directory,
        stays_on_link: volume.stays_on_link,
        root: volume.writable(),
    });
    let targets = user.acquire(namespace, host_paths, &requested.collect::<Vec<_>>())?;
    for (at, target) in targets.into_iter().enumerate() {
        let (outer_volumes, rest) = volumes.split_at_mut(at);
        let volume = &mut rest[0];
        let placed =
            check_place(&target.path, &volume.destination).and_then(|()| match target.inside {
                Some(outer) => place_in(&outer_volumes[outer], volume, &target.path, user),
                None => Ok(()),
            });
        if let Err(error) = placed {
            user.release()?;
            return Err(error);
        }
        volume.destination = target.path;
    }
    Ok(())
}

/// Has the mount point `path` of `volume` made in the volume `outer`.
fn place_in(
    outer: &Volume,
    volume: &mut Volume,
    path: &Path,
    user: MountPointUser<'_>,
) -> Result<(), Error> {
    let Some(root) = outer.writable() else {
        volume.nest_in(outer.destination.clone());
        return Ok(());
    };
    let mut on_component = |parent: BorrowedFd<'_>, name: &OsStr, missing: Option<Kind>| {
        // A filesystem that was made for the volume is removed with it.
        if !outer.is_on_host() {
            return Ok(());
        }
        user.acquire_nested(&on_host(parent, name)?, missing)
    };
    nested::make(
        root,
        &outer.destination,
        path,
        volume.directory,
        &mut on_component,
    )
}

/// The path on the host of what is called `name` in `parent`.
fn on_host(parent: BorrowedFd<'_>, name: &OsStr) -> Result<PathBuf, Error> {
    let link = fd_link(&parent);
    let parent = fs::read_link(&link).context("follow", link)?;
    Ok(parent.join(name))
}
