//! What killed processes and earlier versions have left of containers that no longer exist.
//!
//! An overlay, a mount point and a mark of a member go with their container. Those of one whose monitor
//! and starter were killed stay, since no process is left that knows them. The base knows the ids that
//! they were made for, but not which containers there are: the caller does, and what it is not sure of is
//! left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use reaper_spec::OverlayConfig;

use super::{Overlays, progress::Usage};
use crate::{
    contract::{Context, Error, Scope},
    linux::{files::exists, handle::Handle},
    scope::{
        list,
        mount_points::MountPointUser,
        remove::{forget_member, remove_unused},
    },
    store::{
        base::Base,
        members::members,
        mount_points::{MountPointRegistry, lock, record},
        paths::ScopePaths,
        trash,
    },
};

/// One thing that was left, of a container that no longer exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leftover {
    /// The container's own overlay, with all that was written in it.
    Scope(Scope),
    /// The namespace and the locks of an overlay whose layers were removed.
    Mounts(Scope),
    /// The mark of a member, and the mount points that were made for its volumes.
    Member {
        /// The overlay that it was in; none if it had none.
        scope: Option<Scope>,
        /// The container, by its [unique id](crate::ViewRequest::unique_id).
        id: String,
        /// Its mount points: of the host, or in the overlay.
        mount_points: Vec<PathBuf>,
    },
    /// What killed processes were removing.
    Trash(Usage),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(scope) => write!(f, "the overlay {scope}, whose container does not exist"),
            Self::Mounts(scope) => {
                write!(f, "the mounts of the overlay {scope}, which was removed")
            }
            Self::Member {
                id, mount_points, ..
            } => {
                write!(f, "what container {id} had, which does not exist")?;
                for path in mount_points {
                    write!(f, "; its mount point {}", path.display())?;
                }
                Ok(())
            }
            Self::Trash(usage) => write!(
                f,
                "{} bytes of removed overlays, whose removal was interrupted",
                usage.bytes
            ),
        }
    }
}

/// What is left below the base that `config` names. `is_gone` says of a container, by its
/// [unique id](crate::ViewRequest::unique_id), whether it is known not to exist.
///
/// # Errors
/// The base cannot be read.
pub fn find_leftovers(
    config: &OverlayConfig,
    is_gone: &dyn Fn(&str) -> bool,
) -> Result<Vec<Leftover>, Error> {
    let Some(base) = Base::open(config)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let mut removed = BTreeSet::new();
    for scope in list::scopes(config)? {
        let is_lost = scope.container_id().is_some_and(is_gone);
        if is_lost && members(&ScopePaths::new(&base, &scope))?.is_empty() {
            removed.insert(scope.to_string());
            found.push(Leftover::Scope(scope));
        }
    }
    let live = live_scopes(&base)?;
    for Live {
        scope,
        paths,
        alive,
    } in &live
    {
        if alive.is_empty() && !exists(&paths.data)? {
            removed.insert(scope.to_string());
            found.push(Leftover::Mounts(scope.clone()));
        }
    }
    for ((scope, id), mount_points) in lost_members(&base, &live, is_gone)? {
        // What is left of a scope that is to be removed goes with it.
        if !removed.contains(&scope) {
            // A container without an overlay is recorded as the host's.
            let scope = scope.parse().ok().filter(|_| scope != "host");
            found.push(Leftover::Member {
                scope,
                id,
                mount_points,
            });
        }
    }
    let trash = Overlays::new(config).left_over()?;
    if trash.files > 0 {
        found.push(Leftover::Trash(trash));
    }
    Ok(found)
}

/// Removes one of them. It is not an error if it no longer exists, or has come to life again.
///
/// # Errors
/// Something could not be removed; calling again continues.
pub fn remove_leftover(config: &OverlayConfig, leftover: &Leftover) -> Result<(), Error> {
    let Some(base) = Base::open(config)? else {
        return Ok(());
    };
    match leftover {
        Leftover::Scope(scope) | Leftover::Mounts(scope) => remove_unused(&base, scope),
        Leftover::Member { scope, id, .. } => match scope {
            Some(scope) => forget_member(&base, scope, id),
            None => MountPointUser::on_host(&base, id).release(),
        },
        Leftover::Trash(_) => trash::empty(&base.path),
    }
}

/// A scope that has, or had, members since the start of the machine.
struct Live {
    scope: Scope,
    paths: ScopePaths,
    /// The members that it has.
    alive: Vec<String>,
}

fn live_scopes(base: &Base) -> Result<Vec<Live>, Error> {
    let mut found = Vec::new();
    for name in names(&base.path.join("live/scopes"))? {
        let Some(Ok(scope)) = name.to_str().map(str::parse::<Scope>) else {
            continue;
        };
        let paths = ScopePaths::new(base, &scope);
        let alive = members(&paths)?;
        found.push(Live {
            scope,
            paths,
            alive,
        });
    }
    Ok(found)
}

/// The containers that are gone and were members of a scope, or had mount points: by the scope, or
/// `host`, and their id.
fn lost_members(
    base: &Base,
    live: &[Live],
    is_gone: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<(String, String), Vec<PathBuf>>, Error> {
    let mut lost: BTreeMap<(String, String), Vec<PathBuf>> = BTreeMap::new();
    for Live {
        scope,
        paths,
        alive,
    } in live
    {
        for id in names(&paths.members())? {
            let Some(id) = id.to_str().filter(|id| is_gone(id)) else {
                continue;
            };
            if !alive.iter().any(|member| member == id) {
                lost.entry((scope.to_string(), id.to_owned())).or_default();
            }
        }
    }
    if base.is_ready()? {
        let registry = record(&base.path, base.persistent);
        let _lock = lock(base)?;
        for point in MountPointRegistry::open(&registry)?.points.values() {
            for (scope, ids) in &point.users {
                for id in ids.iter().filter(|id| is_gone(id)) {
                    let points = lost.entry((scope.clone(), id.clone())).or_default();
                    points.push(point.path());
                }
            }
        }
    }
    Ok(lost)
}

/// The names in a directory, sorted; none if it does not exist.
fn names(dir: &Path) -> Result<Vec<OsString>, Error> {
    match Handle::of(dir)? {
        Some(found) => found.names().context("list", dir),
        None => Ok(Vec::new()),
    }
}
