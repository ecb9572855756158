//! Joining a scope, and making it first if it is not mounted.
//!
//! Locks are taken in this order: `members` shared, `changing` exclusive, then that of the mount
//! points. Resetting takes `changing` and then tries `members` exclusively, without waiting. As root
//! a scope that is mounted is joined without `changing`, which would serialise all containers of a
//! host: its pin cannot end while `members` is held. A starter that is killed leaves a table that
//! names every layer that may exist, and the next one goes on from there.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{
    assemble::{Outcome, Recipe},
    assemble_as_user, join_as_user,
    keep::{ScopeNamespace, unpin, view_path},
    layers::Placed,
    masks, mount_points,
    plan::Plan,
};
use crate::{
    contract::{
        Error, Scope,
        host_paths::{self, below_any},
        user::Privilege,
    },
    linux::{
        files::{make_dir, remove_tree},
        flock::{Lock, Mode},
        helper::Helper,
        mountinfo,
    },
    mount::{denied::explain, image::Image, interface::Interface, mask::Mask},
    store::{
        base::Base,
        host_snapshot::Stamps,
        layer_table::{Table, TableHeader},
        members::Membership,
        paths::ScopePaths,
    },
};

/// What a scope is made like, if it has to be made.
#[derive(Debug, Clone)]
pub(crate) struct ScopeOptions<'a> {
    pub(crate) masks: &'a reaper_spec::MaskConfig,
    /// Bound from the host, besides its usual trees.
    pub(crate) host_paths: &'a [PathBuf],
    /// The mounts that need not be protected.
    pub(crate) unprotected: &'a [PathBuf],
    /// Shown beneath the host's root.
    pub(crate) image: Option<Image>,
}

/// What a member has of its scope.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) namespace: ScopeNamespace,
    /// What an administrator should know of the scope: what could not be had when it was made, and
    /// that the host has changed since.
    pub(crate) warnings: Vec<String>,
    pub(crate) membership: Membership,
}

impl Member {
    /// Joins `scope` as `id`, and makes it first if it is not mounted.
    pub(crate) fn join(
        base: &Base,
        scope: &Scope,
        id: &str,
        options: &ScopeOptions<'_>,
    ) -> Result<Self, Error> {
        let paths = ScopePaths::new(&base.path, scope);
        let shared = Lock::take(&paths.members_lock, Mode::Shared)?;
        // A pinned namespace stays: it is joined without the exclusive lock. One that members hold
        // may end with the last of them at any time.
        let pinned = match base.privilege {
            Privilege::Root => ScopeNamespace::find(base.privilege, &paths)?,
            Privilege::User => None,
        };
        let mut warnings = Vec::new();
        let mut changing = None;
        let (namespace, header) = match pinned {
            Some(found) => found,
            None => {
                changing = Some(Lock::take(&paths.changing, Mode::Exclusive)?);
                match ScopeNamespace::find(base.privilege, &paths)? {
                    Some(found) => found,
                    None => make(base, scope, &paths, options, &mut warnings)?,
                }
            }
        };
        if base.privilege == Privilege::Root {
            // The pin can be found from here on; what a member holds only once its marker says so.
            drop(changing.take());
        }
        warnings.extend(changes(base, scope, &paths, &header)?);
        let membership = Membership::take(&paths, id, shared)?;
        namespace.announce(membership.marker())?;
        Ok(Self {
            namespace,
            warnings,
            membership,
        })
    }
}

/// Makes the scope. The caller holds the lock `changing`.
fn make(
    base: &Base,
    scope: &Scope,
    paths: &ScopePaths,
    options: &ScopeOptions<'_>,
    warnings: &mut Vec<String>,
) -> Result<(ScopeNamespace, TableHeader), Error> {
    undone_if_new(paths, || {
        let helper = match base.privilege {
            Privilege::Root => assemble(
                scope,
                paths,
                warnings,
                |table| recipe(base, paths, options, table),
                Recipe::assemble,
            ),
            Privilege::User => assemble(
                scope,
                paths,
                warnings,
                |table| join_as_user::recipe(base, paths, options, table),
                assemble_as_user::Recipe::assemble,
            )
            .map_err(explain),
        }?;
        let kept = ScopeNamespace::keep(base.privilege, paths, &helper)?;
        // Mount points of members that were killed: until now there was nothing mounted to remove
        // them from.
        mount_points::release_all(base, scope, Some(&kept.0))?;
        Ok(kept)
    })
}

/// Makes a scope by `make`; one that did not exist and cannot be made is not there afterwards.
fn undone_if_new<T>(
    paths: &ScopePaths,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let is_new = Table::read(paths)?.is_none();
    let made = make();
    if made.is_err() && is_new {
        // The first error is returned; what cannot be undone now, the next maker finds.
        let _ = unpin(paths)
            .and_then(|()| remove_tree(&paths.data))
            .and_then(|()| remove_tree(&paths.live));
    }
    made
}

/// Makes the layers that `plan` finds necessary, and has a helper mount them by `assemble`. The
/// helper that is returned keeps the namespace.
fn assemble<R>(
    scope: &Scope,
    paths: &ScopePaths,
    warnings: &mut Vec<String>,
    plan: impl FnOnce(&mut Table) -> Result<R, Error>,
    assemble: impl FnOnce(&R) -> Result<Outcome, Error>,
) -> Result<Helper, Error> {
    make_dir(&paths.data)?;
    make_dir(&paths.members())?;
    let mut table = Table::read(paths)?.unwrap_or_else(Table::new);
    let recipe = plan(&mut table)?;
    // Before the layers are used: a killed starter must not leave one that nobody knows.
    table.write(paths)?;
    let (outcome, helper) = Helper::start("assemble the overlay", || assemble(&recipe))?;
    warnings.extend(outcome.warnings(scope));
    table.read_only = outcome.read_only;
    table.unprotected = outcome.unprotected;
    table.locked = outcome.locked;
    table.keeps_host = outcome.keeps_host;
    table.write(paths)?;
    Ok(helper)
}

fn recipe(
    base: &Base,
    paths: &ScopePaths,
    options: &ScopeOptions<'_>,
    table: &mut Table,
) -> Result<Recipe, Error> {
    let interface = Interface::ask();
    let mounts = mountinfo::read()?;
    let visible = mountinfo::visible(&mounts);
    let plan = Plan::new(
        &visible,
        options.host_paths,
        std::slice::from_ref(&base.path),
    );
    let masks = masks::find(options.masks, &plan.hidden)?;
    let root = Path::new("/");
    let (covers, masks): (Vec<Mask>, Vec<Mask>) = masks
        .into_iter()
        .partition(|mask| below_any(&mask.path, &plan.host));
    let mut by_mount: HashMap<&Path, Vec<&Mask>> = HashMap::new();
    for mask in &masks {
        let mounts = plan.submounts.iter().map(|mount| mount.path.as_path());
        // A mask of a mount as a whole hides the place that it is mounted on.
        let below =
            mounts.filter(|mount| host_paths::is_below(&mask.path, mount) && mask.path != **mount);
        let mount = below
            .max_by_key(|mount| mount.components().count())
            .unwrap_or(root);
        by_mount.entry(mount).or_default().push(mask);
    }
    remove_tree(&paths.live_masks())?;
    let mut place = |mount: &Path| {
        let mine = by_mount.get(mount).into_iter().flatten();
        Placed {
            layer: table.layer(paths, mount),
            masks: mine.map(|mask| (*mask).clone()).collect(),
        }
    };
    let placed = place(root);
    let mounts = plan.submounts.iter();
    let layers = mounts.map(|mount| place(&mount.path)).collect();
    let lower = plan.submounts.iter().map(|mount| mount.path.as_path());
    table.stamps = Stamps::take(lower.chain([root]));
    let at = match interface {
        Interface::Classic => view_path(paths),
        _ => base.path.join("root"),
    };
    make_dir(&at)?;
    Ok(Recipe {
        root: placed,
        layers,
        covers,
        image: options.image.clone(),
        at,
        persistent: base.persistent,
        interface,
        unprotected: options.unprotected.to_vec(),
        plan,
    })
}

/// Says so if the host is not what it was when the scope was made.
fn changes(
    base: &Base,
    scope: &Scope,
    paths: &ScopePaths,
    header: &TableHeader,
) -> Result<Option<String>, Error> {
    let matters = |path: &Path| !host_paths::is_apart(path) && !path.starts_with(&base.path);
    if header.stamps.is_unchanged(matters) {
        return Ok(None);
    }
    let table = Table::read(paths)?.unwrap_or_else(Table::new);
    let changed = table.stamps.changed();
    Ok((!changed.is_empty()).then(|| {
        format!(
            "overlay {scope}: the node changed below it ({}); reset it when nobody uses it",
            changed.join(", ")
        )
    }))
}
