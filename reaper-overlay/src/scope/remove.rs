//! Resetting and removing a scope, while it is held exclusively.

use reaper_spec::OverlayConfig;

use super::{
    join::hold_layers,
    keep::unpin,
    list::layers,
    mount_points::{self, MountPointUser},
};
use crate::{
    contract::{Error, Scope, user::Privilege},
    linux::{
        files::{exists, remove_file, remove_tree},
        flock::{Lock, Mode},
    },
    store::{
        base::Base,
        members::{Membership, may_have_members, members},
        paths::ScopePaths,
        scope_limit,
        trash::Trash,
    },
};

/// Removes `scope` with all that was written in it.
pub(crate) fn remove(config: &OverlayConfig, scope: &Scope) -> Result<(), Error> {
    let (base, _) = layers(config, scope)?;
    let paths = ScopePaths::new(&base, scope);
    let alone = ExclusiveScope::take(scope, &paths)?;
    alone.remove(&base, &paths)
}

/// A scope without members, which none can join until this is dropped.
pub(crate) struct ExclusiveScope {
    scope: Scope,
    _changing: Lock,
    _members: Lock,
    _layers: Option<Lock>,
}

impl ExclusiveScope {
    /// Fails with [`Error::ScopeBusy`] while the scope has members.
    pub(crate) fn take(scope: &Scope, paths: &ScopePaths) -> Result<Self, Error> {
        let changing = Lock::take(&paths.changing, Mode::Exclusive)?;
        let Some(alone) = Lock::try_exclusive(&paths.members_lock)? else {
            return Err(Error::ScopeBusy {
                name: scope.to_string(),
                by: members(paths)?,
            });
        };
        let layers = match exists(&paths.data)? {
            true => Some(hold_layers(scope, paths, Mode::Exclusive)?),
            false => None,
        };
        Ok(Self {
            scope: scope.clone(),
            _changing: changing,
            _members: alone,
            _layers: layers,
        })
    }

    /// Throws away the namespace and the layers, and the mount points that members left who were
    /// killed.
    pub(crate) fn clear(&self, base: &Base, paths: &ScopePaths) -> Result<Trash, Error> {
        base.at_home("unmount the scope", |base| {
            let paths = ScopePaths::new(base, &self.scope);
            unpin(&paths)?;
            scope_limit::remove(&paths)
        })?;
        let trash = Trash::discard(&base.path, &paths.data)?;
        remove_tree(&paths.live)?;
        remove_tree(&paths.records)?;
        mount_points::release_removed(base, &self.scope)?;
        Ok(trash)
    }

    /// Removes the scope for good, with its locks.
    pub(crate) fn remove(self, base: &Base, paths: &ScopePaths) -> Result<(), Error> {
        let trash = self.clear(base, paths)?;
        remove_file(&paths.members_lock)?;
        remove_file(&paths.changing)?;
        // From here on the name is free for the next scope.
        drop(self);
        trash.remove()
    }
}

/// Ends the namespace of `scope` unless it has members: its overlays would keep filesystems in use that the
/// host unmounts. The next member mounts it afresh over the same layers.
pub(crate) fn unmount_unused(base: &Base, scope: &Scope) -> Result<(), Error> {
    let paths = ScopePaths::new(base, scope);
    if base.privilege == Privilege::User || !exists(&paths.pin)? {
        return Ok(());
    }
    let Some(alone) = Lock::try_exclusive(&paths.members_lock)? else {
        return Ok(());
    };
    if !may_have_members(&paths)? {
        base.at_home("unmount the scope", |base| {
            unpin(&ScopePaths::new(base, scope))
        })?;
    }
    drop(alone);
    // Who wants the scope removed took this lock for a member's, and leaves the removal to its end.
    if exists(&paths.remove_when_empty())? {
        return remove_unused(base, scope);
    }
    Ok(())
}

/// Removes what a member of `scope` has left that was killed: its mount points and its marker.
pub(crate) fn forget_member(base: &Base, scope: &Scope, id: &str) -> Result<(), Error> {
    MountPointUser::in_scope(base, scope, id).release()?;
    remove_file(&ScopePaths::new(base, scope).members().join(id))?;
    unmount_or_warn(base, scope)
}

/// As [`unmount_unused`]; where that fails the next member does it.
fn unmount_or_warn(base: &Base, scope: &Scope) -> Result<(), Error> {
    unmount_unused(base, scope).or_else(|error| {
        tracing::warn!("the overlay {scope} stays mounted without members: {error}");
        Ok(())
    })
}

/// Removes `scope` unless it has members.
pub(crate) fn remove_unused(base: &Base, scope: &Scope) -> Result<(), Error> {
    let paths = ScopePaths::new(base, scope);
    match ExclusiveScope::take(scope, &paths) {
        Ok(alone) => alone.remove(base, &paths),
        Err(Error::ScopeBusy { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Membership {
    /// Leaves, and unmounts the scope with its last member, or removes it if it is to go with that.
    pub(crate) fn end(
        self,
        base: &Base,
        scope: &Scope,
        remove_with_last: bool,
    ) -> Result<(), Error> {
        self.leave()?;
        drop(self);
        if remove_with_last || exists(&ScopePaths::new(base, scope).remove_when_empty())? {
            return remove_unused(base, scope);
        }
        unmount_or_warn(base, scope)
    }
}
