//! A scope of an ordinary user, which lives as long as its members.
//!
//! Nothing can be pinned without root. Each member's process holds the scope's namespaces open and
//! says in its marker by which descriptors; whoever joins opens them through `/proc`.

use std::{
    collections::HashSet,
    fs, io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use reaper_spec::MaskConfig;

use super::{
    assemble_as_user::Recipe,
    image,
    join::{assemble, changes, undone_if_new},
    keep::{Holder, find_held},
    layers_as_user, masks_as_user, mount_points,
    plan_as_user::{self, Place, Shape},
};
use crate::{
    contract::{Context, Error, Scope},
    linux::{
        flock::{Lock, Mode},
        mountinfo,
        namespace::Namespaces,
    },
    mount::{denied::explain, image::Image},
    store::{
        base::Base,
        host_snapshot::Stamps,
        layer_table::{Brief, Layer, Table},
        members::Membership,
        paths::ScopePaths,
    },
};

/// What the makers of a scope want of it.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) masks: &'a MaskConfig,
    /// To show beneath the host's root.
    pub(crate) image: Option<Image>,
    /// Bound from the host, besides its usual trees.
    pub(crate) host_paths: &'a [PathBuf],
    /// The mounts that need not be protected.
    pub(crate) unprotected: &'a [PathBuf],
}

/// What a member has of its scope. As long as it lives, others can join.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) namespaces: Namespaces,
    /// What people should know of the scope.
    pub(crate) warnings: Vec<String>,
    pub(crate) membership: Membership,
}

impl Member {
    /// Joins `scope` as `id`, and makes it first if it has no members.
    pub(crate) fn join(
        base: &Base,
        scope: &Scope,
        id: &str,
        wanted: &Wanted<'_>,
    ) -> Result<Self, Error> {
        let paths = ScopePaths::new(&base.path, scope);
        let shared = Lock::take(&paths.members_lock, Mode::Shared)?;
        let _changing = Lock::take(&paths.changing, Mode::Exclusive)?;
        let mut warnings = Vec::new();
        let namespaces = match find_held(&paths)? {
            Some(namespaces) => namespaces,
            None => make(base, scope, &paths, wanted, &mut warnings)?,
        };
        let brief = Brief::read(&paths)?.unwrap_or_default();
        warnings.extend(changes(base, scope, &paths, &brief)?);
        let membership = Membership::take(&paths, id, shared)?;
        let marker = membership.marker();
        let holder = Holder {
            pid: std::process::id(),
            user: namespaces.user.as_raw_fd(),
            mount: namespaces.mount.as_raw_fd(),
            inode: namespaces.mount.metadata().context("stat", marker)?.ino(),
        };
        let text = serde_json::to_vec(&holder).map_err(io::Error::from);
        text.and_then(|text| fs::write(marker, text))
            .context("write", marker)?;
        Ok(Self {
            namespaces,
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
    wanted: &Wanted<'_>,
    warnings: &mut Vec<String>,
) -> Result<Namespaces, Error> {
    let plan = |table: &mut Table| recipe(base, paths, wanted, table);
    undone_if_new(paths, || {
        let helper = assemble(scope, paths, warnings, plan, Recipe::assemble).map_err(explain)?;
        let namespaces = Namespaces::of(helper.pid().as_raw().unsigned_abs())?;
        // Of members that were killed, when nothing was mounted any more to remove them from.
        mount_points::release_all(base, scope, Some(&|| namespaces.enter()))?;
        Ok(namespaces)
    })
}

fn recipe(
    base: &Base,
    paths: &ScopePaths,
    wanted: &Wanted<'_>,
    table: &mut Table,
) -> Result<Recipe, Error> {
    let mounts = mountinfo::read()?;
    let points: HashSet<&Path> = mounts.iter().map(|m| m.mount_point.as_path()).collect();
    let mut places = plan_as_user::plan(&mounts, wanted.host_paths)?;
    let hidden = crate::scope::masks::find(wanted.masks, &[])?;
    let covers = masks_as_user::apply(&mut places, hidden, &base.path);
    let image = wanted.image.as_ref();
    let image = image.map(|it| image::root(it, &mounts)).transpose()?;
    let mut layers: Vec<Option<Layer>> = Vec::new();
    for place in &places {
        let overlaid = matches!(place.shape, Shape::Overlay | Shape::Shell(_));
        let layer = overlaid.then(|| table.layer(paths, &place.path));
        if let Some(layer) = &layer
            && layers_as_user::make(layer, place)?
            && let Shape::Shell(copies) = &place.shape
        {
            let inside = |part: &&Place| part.path.parent() == Some(&place.path);
            layers_as_user::make_shell(layer, copies, places.iter().filter(inside))?;
        }
        layers.push(layer);
    }
    let lower = layers.iter().flatten().map(|layer| layer.mount.as_path());
    table.stamps = Stamps::take(lower.filter(|path| points.contains(path)));
    Ok(Recipe {
        places: places.into_iter().zip(layers).collect(),
        covers,
        image,
        at: base.path.join("root"),
        hidden: base.path.clone(),
        unprotected: wanted.unprotected.to_vec(),
    })
}
