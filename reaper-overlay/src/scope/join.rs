//! A scope that is alive: made when it is first needed, pinned, joined.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    assemble::{Outcome, Recipe},
    keep::{Pin, beside, open_pin, pin, unpin},
    layers::Placed,
    masks, mount_points,
    plan::Plan,
};
use crate::{
    contract::{
        Error, Scope,
        host_paths::{self, below_any},
    },
    linux::{
        files::{make_dir, remove_tree},
        flock::{Lock, Mode},
        helper::Helper,
        mountinfo,
    },
    mount::{image::Image, interface::Interface, mask::Mask},
    store::{
        base::Base,
        host_snapshot::Stamps,
        layer_table::{Brief, Table},
        members::Membership,
        paths::ScopePaths,
    },
};

/// What the makers of a scope want of it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) masks: &'a reaper_spec::MaskConfig,
    /// Bound from the host, besides its usual trees.
    pub(crate) host_paths: &'a [PathBuf],
    /// The mounts that need not be protected.
    pub(crate) unprotected: &'a [PathBuf],
    pub(crate) image: Option<Image>,
    pub(crate) interface: Interface,
}

/// What a member has of its scope.
#[derive(Debug)]
pub(crate) struct Member {
    /// The scope's mount namespace.
    pub(crate) pin: Pin,
    /// What people should know of the scope: what could not be had when it was made, and that the
    /// host has changed since.
    pub(crate) warnings: Vec<String>,
    pub(crate) membership: Membership,
}

impl Member {
    /// Joins `scope` as `id`, and makes it first if it is not alive.
    pub(crate) fn join(
        base: &Base,
        scope: &Scope,
        id: &str,
        wanted: &Wanted<'_>,
    ) -> Result<Self, Error> {
        let paths = ScopePaths::new(&base.path, scope);
        let shared = Lock::take(&paths.members_lock, Mode::Shared)?;
        let mut warnings = Vec::new();
        let pin = match open_pin(&paths)? {
            Some(pin) => pin,
            None => {
                let _changing = Lock::take(&paths.changing, Mode::Exclusive)?;
                match open_pin(&paths)? {
                    Some(pin) => pin,
                    None => make(base, scope, &paths, wanted, &mut warnings)?,
                }
            }
        };
        let brief = Brief::read(&paths)?.unwrap_or_default();
        warnings.extend(changes(base, scope, &paths, &brief)?);
        Ok(Self {
            pin: Pin::new(&paths, pin, &brief),
            warnings,
            membership: Membership::take(&paths, id, shared)?,
        })
    }
}

/// Makes the scope and pins it. The caller holds the lock `changing`.
fn make(
    base: &Base,
    scope: &Scope,
    paths: &ScopePaths,
    wanted: &Wanted<'_>,
    warnings: &mut Vec<String>,
) -> Result<File, Error> {
    let plan = |table: &mut Table| recipe(base, paths, wanted, table);
    undone_if_new(paths, || {
        let helper = assemble(scope, paths, warnings, plan, Recipe::assemble)?;
        pin(paths, &helper)?;
        let pin = open_pin(paths)?.ok_or_else(|| Error::System {
            operation: "open the namespace pinned to",
            path: paths.pin.clone(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        // Of members that ended with the machine.
        if let Some(pin) = Pin::open(paths)? {
            mount_points::release_all(base, scope, Some(&|| pin.enter()))?;
        }
        Ok(pin)
    })
}

/// Makes a scope by `make`; one that did not exist and cannot be made is not there afterwards.
pub(crate) fn undone_if_new<T>(
    paths: &ScopePaths,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let is_new = Table::read(paths)?.is_none();
    let made = make();
    if made.is_err() && is_new {
        // The first error is the one to tell.
        let _ = unpin(paths)
            .and_then(|()| remove_tree(&paths.data))
            .and_then(|()| remove_tree(&paths.live));
    }
    made
}

/// Makes the layers that `plan` finds necessary, and has a helper mount them by `assemble`. The
/// helper that is returned keeps the namespace.
pub(crate) fn assemble<R>(
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
    wanted: &Wanted<'_>,
    table: &mut Table,
) -> Result<Recipe, Error> {
    let mounts = mountinfo::read()?;
    let visible = mountinfo::visible(&mounts);
    let plan = Plan::new(
        &visible,
        wanted.host_paths,
        std::slice::from_ref(&base.path),
    );
    let masks = masks::find(wanted.masks, &plan.hidden)?;
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
    let at = match wanted.interface {
        Interface::Classic => beside(paths),
        _ => base.path.join("root"),
    };
    make_dir(&at)?;
    Ok(Recipe {
        root: placed,
        layers,
        covers,
        image: wanted.image.clone(),
        at,
        persistent: base.persistent,
        interface: wanted.interface,
        unprotected: wanted.unprotected.to_vec(),
        plan,
    })
}

/// Says so if the host is not what it was when the scope was made.
pub(crate) fn changes(
    base: &Base,
    scope: &Scope,
    paths: &ScopePaths,
    brief: &Brief,
) -> Result<Option<String>, Error> {
    let matters = |path: &Path| !host_paths::is_apart(path) && !path.starts_with(&base.path);
    if brief.stamps.is_unchanged(matters) {
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
