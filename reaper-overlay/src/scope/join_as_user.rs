//! A scope of an ordinary user, which lives as long as its members.
//!
//! Nothing can be pinned without root. Each member's process holds the scope's namespaces open and
//! says in its marker by which descriptors; whoever joins opens them through `/proc`.

use std::{collections::HashSet, path::Path};

use super::{
    assemble_as_user::Recipe,
    image,
    join::ScopeOptions,
    layers_as_user, masks_as_user,
    plan_as_user::{self, Place, Shape},
};
use crate::{
    contract::Error,
    linux::mountinfo,
    store::{
        base::Base,
        host_snapshot::Stamps,
        layer_table::{Layer, Table},
        paths::ScopePaths,
    },
};

pub(crate) fn recipe(
    base: &Base,
    paths: &ScopePaths,
    options: &ScopeOptions<'_>,
    table: &mut Table,
) -> Result<Recipe, Error> {
    let mounts = mountinfo::read()?;
    let points: HashSet<&Path> = mounts.iter().map(|m| m.mount_point.as_path()).collect();
    let mut places = plan_as_user::plan(&mounts, options.host_paths)?;
    let hidden = crate::scope::masks::find(options.masks, &[])?;
    let covers = masks_as_user::apply(&mut places, hidden, &base.path);
    let image = options.image.as_ref();
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
        unprotected: options.unprotected.to_vec(),
    })
}
