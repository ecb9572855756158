//! The limit of a scope, kept by the filesystem.
//!
//! In a base on a tmpfs it is a tmpfs of its own, mounted on the directory of the layers; in one on a disk a
//! quota of the project that all files of the layers have. So a workload that fills its scope gets `ENOSPC`
//! (ext4: `EDQUOT`), and neither another scope nor Reaper's records, which are on the tmpfs `live` or in no
//! project, have less space. The mount, or the project of the directory, is the only record of it.
//!
//! A project's quota is lifted while the overlays are mounted: where it is used up, the kernel could make no work
//! directory, and would mount them read-only. The scope has no members then.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    fs::statvfs,
    mount::{UnmountFlags, unmount},
};

use super::{base::own_tmpfs, layer_table::Table, paths::ScopePaths, project::Project};
use crate::contract::{Context, Error};

/// Gives a scope that has no layers yet a tmpfs of `bytes`. One that has layers keeps the limit that it was
/// made with, or none: what was written in it would be hidden.
///
/// In the mount namespace that the base belongs to; the caller holds the lock `changing`, and not yet that
/// of the layers' directory, over which this mounts.
pub(crate) fn mount(paths: &ScopePaths, bytes: u64) -> Result<(), Error> {
    if paths.is_persistent() || has_layers(paths)? {
        return Ok(());
    }
    // A maker that was killed may have mounted one of another size.
    unmount_own(paths)?;
    own_tmpfs(&paths.data, &bytes.to_string())
}

/// Lifts the quota of a scope that is about to be mounted, and returns the project of its layers, if it has one.
/// One that has no layers yet gets one where there is to be a limit; one that was made without has none.
///
/// The caller holds the layers' directory alone, so that there is no member who could write meanwhile.
pub(crate) fn lift(paths: &ScopePaths, bytes: Option<u64>) -> Result<Option<Project>, Error> {
    if !paths.is_persistent() {
        return Ok(None);
    }
    if let Some(project) = Project::of(&paths.data)? {
        project.lift(&paths.data)?;
        return Ok(Some(project));
    }
    if bytes.is_none() || has_layers(paths)? {
        return Ok(None);
    }
    Project::claim(&paths.data).map(Some)
}

fn has_layers(paths: &ScopePaths) -> Result<bool, Error> {
    Ok(Table::read(paths)?.is_some_and(|table| !table.layers(paths).is_empty()))
}

/// Takes the limit of a scope away, if it has one. Idempotent; in the mount namespace that the base belongs to.
///
/// A project that has no quota is used anew once its last file is removed, by any process.
pub(crate) fn remove(paths: &ScopePaths) -> Result<(), Error> {
    if paths.is_persistent()
        && let Some(project) = Project::of(&paths.data)?
    {
        project.lift(&paths.data)?;
    }
    unmount_own(paths)
}

/// Unmounts the tmpfs of a scope, if it has one.
///
/// Other namespaces may have copies of the mount, as those of services that were started since. They end when
/// the directory is removed: rmdir(2) detaches what is mounted on it in any namespace.
fn unmount_own(paths: &ScopePaths) -> Result<(), Error> {
    if size_of_own(paths)?.is_none() {
        return Ok(());
    }
    unmount(&paths.data, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .context("unmount", &paths.data)
}

/// Whether the limit of a scope is a quota, which the project of its files decides about.
pub(crate) fn is_of_project(paths: &ScopePaths) -> Result<bool, Error> {
    if !paths.is_persistent() {
        return Ok(false);
    }
    let project = Project::of(&paths.data)?;
    let limit = project.map(|project| project.limit(&paths.data));
    Ok(limit.transpose()?.flatten().is_some())
}

/// The limit of a scope in bytes; `None` if it has none, or does not exist.
pub(crate) fn limit(paths: &ScopePaths) -> Result<Option<u64>, Error> {
    if let Some(size) = size_of_own(paths)? {
        return Ok(Some(size));
    }
    if !paths.is_persistent() {
        return Ok(None);
    }
    match Project::of(&paths.data)? {
        Some(project) => project.limit(&paths.data),
        None => Ok(None),
    }
}

/// The size of the tmpfs of a scope, if it has one.
fn size_of_own(paths: &ScopePaths) -> Result<Option<u64>, Error> {
    let device = |path: &Path| match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.dev())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("look at", path),
    };
    let beside = paths.data.parent().map_or(Ok(None), device)?;
    match device(&paths.data)? {
        Some(own) if Some(own) != beside => {
            let stat = statvfs(&paths.data).context("look at the filesystem of", &paths.data)?;
            Ok(Some(stat.f_blocks * stat.f_frsize))
        }
        _ => Ok(None),
    }
}
