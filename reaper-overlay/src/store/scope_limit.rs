//! The limit of a scope: a tmpfs of its own, mounted on the directory of its layers.
//!
//! So a workload that fills its scope gets `ENOSPC`, and neither another scope nor Reaper's records, which
//! are on the tmpfs `live`, have less space. The mount is the only record of the limit.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    fs::statvfs,
    mount::{UnmountFlags, unmount},
};

use super::{base::own_tmpfs, layer_table::Table, paths::ScopePaths};
use crate::contract::{Context, Error};

/// Gives a scope that has no layers yet a tmpfs of `bytes`. One that has layers keeps the limit that it was
/// made with, or none: what was written in it would be hidden.
///
/// In the mount namespace that the base belongs to; the caller holds the lock `changing`, and not yet that
/// of the layers' directory, over which this mounts.
pub(crate) fn mount(paths: &ScopePaths, bytes: u64) -> Result<(), Error> {
    let has_layers = Table::read(paths)?.is_some_and(|table| !table.layers(paths).is_empty());
    if has_layers {
        return Ok(());
    }
    // A maker that was killed may have mounted one of another size.
    remove(paths)?;
    own_tmpfs(&paths.data, &bytes.to_string())
}

/// Unmounts the tmpfs of a scope, if it has one. Idempotent; in the mount namespace that the base belongs to.
///
/// Other namespaces may have copies of the mount, as those of services that were started since. They end when
/// the directory is removed: rmdir(2) detaches what is mounted on it in any namespace.
pub(crate) fn remove(paths: &ScopePaths) -> Result<(), Error> {
    if limit(paths)?.is_none() {
        return Ok(());
    }
    unmount(&paths.data, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .context("unmount", &paths.data)
}

/// The limit of a scope in bytes; `None` if it has none, or does not exist.
pub(crate) fn limit(paths: &ScopePaths) -> Result<Option<u64>, Error> {
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
