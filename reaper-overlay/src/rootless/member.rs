//! A scope of an ordinary user, which lives as long as its members.
//!
//! Nothing can be pinned without root. Each member's process holds the scope's namespaces open and
//! says in its marker by which descriptors; whoever joins opens them through `/proc`.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use reaper_spec::MaskConfig;
use serde::{Deserialize, Serialize};

use super::{
    assemble::Recipe,
    image, layer, masks,
    plan::{self, Place, Shape},
};
use crate::{
    contract::{Context, Error, Scope},
    linux::{
        files::read_json,
        flock::{Lock, Mode},
        mountinfo,
        namespace::{NSFS_MAGIC, Namespaces},
    },
    live::{assemble, changes, undone_if_new},
    mount::{denied::explain, image::Image},
    store::{
        base::Base,
        host_snapshot::Stamps,
        layer_table::{Brief, Layer, Table},
        members::{Membership, members},
        paths::ScopePaths,
    },
    volumes::points,
};

/// Where a member has the namespaces open.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    user: i32,
    mount: i32,
    /// The inode of the mount namespace: the pid and the descriptors may have become others'.
    inode: u64,
}

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
        let namespaces = match find(&paths)? {
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

/// The namespaces of a scope that has members.
pub(crate) fn find(paths: &ScopePaths) -> Result<Option<Namespaces>, Error> {
    for id in members(paths)? {
        let marker = paths.members().join(id);
        let Ok(Some(holder)) = read_json::<Holder>(&marker) else {
            // Its joiner was killed before it could write it.
            continue;
        };
        match holder.open() {
            Ok(Some(namespaces)) => return Ok(Some(namespaces)),
            // It is ending: all its processes have ended before.
            Ok(None) => {}
            Err(error) => return Err(error).context("join the scope of", marker),
        }
    }
    Ok(None)
}

impl Holder {
    fn open(&self) -> io::Result<Option<Namespaces>> {
        let open = |fd: i32| match File::open(format!("/proc/{}/fd/{fd}", self.pid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        };
        let (Some(user), Some(mount)) = (open(self.user)?, open(self.mount)?) else {
            return Ok(None);
        };
        let namespace =
            |file: &File| rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC);
        let same = namespace(&user)
            && namespace(&mount)
            && mount
                .metadata()
                .is_ok_and(|there| there.ino() == self.inode);
        Ok(same.then_some(Namespaces { user, mount }))
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
        points::release_all(base, scope, Some(&|| namespaces.enter()))?;
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
    let mut places = plan::plan(&mounts, wanted.host_paths)?;
    let hidden = crate::scope::masks::find(wanted.masks, &[])?;
    let covers = masks::apply(&mut places, hidden, &base.path);
    let image = wanted.image.as_ref();
    let image = image.map(|it| image::root(it, &mounts)).transpose()?;
    let mut layers: Vec<Option<Layer>> = Vec::new();
    for place in &places {
        let overlaid = matches!(place.shape, Shape::Overlay | Shape::Shell(_));
        let layer = overlaid.then(|| table.layer(paths, &place.path));
        if let Some(layer) = &layer
            && layer::make(layer, place)?
            && let Shape::Shell(copies) = &place.shape
        {
            let inside = |part: &&Place| part.path.parent() == Some(&place.path);
            layer::make_shell(layer, copies, places.iter().filter(inside))?;
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
