//! Finding a mount point for each volume.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    contract::{Context, Error},
    linux::{handle::fd_link, in_use::InUse, mount_point::Part},
    scope::{
        keep::ScopeNamespace,
        mount_points::{MountPointUser, MountTarget, Requested},
    },
    volume::{
        nested::{self, Component},
        open::Volume,
        request::check_place,
    },
};

/// How often a mount point is made anew in a volume that another base's container has removed meanwhile.
const ATTEMPTS: usize = 20;

/// Finds or makes the mount points of `volumes` for `user`, and holds those that others may remove. `namespace`
/// is the scope's.
///
/// A mount point that lies in an earlier volume is made in that one: before it is mounted where the
/// volume exists already, else when both are mounted.
pub(crate) fn place(
    volumes: &mut [Volume],
    user: MountPointUser<'_>,
    namespace: Option<&ScopeNamespace>,
    host_paths: &[PathBuf],
) -> Result<Vec<InUse>, Error> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let requested = volumes.iter().map(|volume| Requested {
        destination: &volume.destination,
        directory: volume.directory,
        stays_on_link: volume.stays_on_link,
        root: volume.writable(),
    });
    let requested = requested.collect::<Vec<_>>();
    let (targets, mut held) = user.acquire(namespace, host_paths, &requested)?;
    drop(requested);
    let mut recorded = Recorded::default();
    if let Err(error) = recorded.add_all(volumes, &targets, user) {
        // What is held would not be removed.
        drop(held);
        user.release()?;
        return Err(error);
    }
    for (at, target) in targets.into_iter().enumerate() {
        let (outer_volumes, rest) = volumes.split_at_mut(at);
        let volume = &mut rest[0];
        let placed =
            check_place(&target.path, &volume.destination).and_then(|()| match target.inside {
                Some(outer) => {
                    place_in(&outer_volumes[outer], volume, &target.path, user, &recorded)
                }
                None => Ok(None),
            });
        match placed {
            Ok(in_use) => held.extend(in_use),
            Err(error) => {
                drop(held);
                user.release()?;
                return Err(error);
            }
        }
        volume.destination = target.path;
    }
    Ok(held)
}

/// Has the mount point `path` of `volume` made in the volume `outer`.
fn place_in(
    outer: &Volume,
    volume: &mut Volume,
    path: &Path,
    user: MountPointUser<'_>,
    recorded: &Recorded,
) -> Result<Option<InUse>, Error> {
    let Some(root) = outer.writable() else {
        volume.nest_in(outer.destination.clone());
        return Ok(None);
    };
    // A filesystem that was made for the volume is removed with it.
    let is_on_host = outer.is_on_host();
    let mut on_component = |part: Component<'_>| {
        if !is_on_host {
            return Ok(());
        }
        let part = on_host(&part)?;
        match recorded.has(&part) {
            true => Ok(()),
            // Another container has changed the volume since.
            false => user.acquire_nested(&[part]),
        }
    };
    let mut make = || {
        let outer = &outer.destination;
        nested::make(root, outer, path, volume.directory, &mut on_component)?;
        let relative = path.strip_prefix(outer).unwrap_or(path);
        match is_on_host {
            true => InUse::below(root, relative).map(Some),
            false => Ok(None),
        }
    };
    let mut made = make();
    for _ in 1..ATTEMPTS {
        if !made.as_ref().is_err_and(Error::is_gone) {
            break;
        }
        made = make();
    }
    made
}

/// A part as it is counted, by its path on the host.
fn on_host(part: &Component<'_>) -> Result<Part, Error> {
    let link = fd_link(&part.parent);
    let parent = fs::read_link(&link).context("follow", link)?;
    Ok(Part {
        path: parent.join(part.name),
        missing: part.missing,
        is_mount_point: part.is_last,
    })
}

/// What was recorded of the parts of mount points in volumes before the first of them was made, and whether it was
/// missing then: one write, however many they are.
#[derive(Default)]
struct Recorded(HashMap<PathBuf, bool>);

impl Recorded {
    fn add_all(
        &mut self,
        volumes: &[Volume],
        targets: &[MountTarget],
        user: MountPointUser<'_>,
    ) -> Result<(), Error> {
        let mut parts = Vec::new();
        for (volume, target) in volumes.iter().zip(targets) {
            let Some(outer) = target.inside.filter(|&outer| volumes[outer].is_on_host()) else {
                continue;
            };
            let Some(root) = volumes[outer].writable() else {
                continue;
            };
            let around = &targets[outer].path;
            parts.extend(nested::look(root, around, &target.path, volume.directory)?);
        }
        user.acquire_nested(&parts)?;
        let parts = parts.into_iter();
        self.0
            .extend(parts.map(|part| (part.path, part.missing.is_some())));
        Ok(())
    }

    /// Whether it says of `part` what there is to say.
    fn has(&self, part: &Part) -> bool {
        let was_missing = self.0.get(&part.path);
        was_missing.is_some_and(|&was_missing| was_missing || part.missing.is_none())
    }
}
