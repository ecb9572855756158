//! What of its view a container cannot change, or read.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use reaper_spec::{FileRestrictions, RootPropagation};
use rustix::mount::MountPropagationFlags;

use crate::{
    contract::{Context, Error, ViewRequest},
    linux::{mount_point, mountinfo, namespace::Ids, resolve::in_view},
    mount::{
        attributes::{self, READ_ONLY, Restriction},
        interface::Interface,
        restrict,
    },
    volume::{
        filter::{CGROUPS, engines_tree},
        open::Volume,
        options::Options,
    },
};

/// Where a read-only view is writable nevertheless: what is there are no files.
const NOT_FILES: [&str; 3] = ["/proc", "/dev/shm", "/dev/pts"];

/// The restrictions of one container, applied in its own copy of the mounts.
#[derive(Debug)]
pub(crate) struct Restrictions {
    wanted: FileRestrictions,
    /// Of whole trees, outer ones first.
    trees: Vec<Restriction>,
    /// None where it is what every view has, a slave of the host.
    propagation: Option<MountPropagationFlags>,
    /// The working directory and whose it is, where it is made if the view lacks it.
    cwd: Option<(PathBuf, Option<Ids>)>,
}

impl Restrictions {
    /// `None` where nothing is restricted. With `makes_cwd` the view makes the working directory.
    pub(crate) fn of(request: &ViewRequest, makes_cwd: bool) -> Result<Option<Self>, Error> {
        let none = FileRestrictions::default();
        let (wanted, mounts) = match request.restrictions.lifted {
            true => (&none, &[][..]),
            false => (&request.restrictions, &*request.mounts),
        };
        let mut trees = Vec::new();
        let mut add = |path: &Path, set, writable| {
            let path = path.to_owned();
            trees.push(Restriction {
                path,
                set,
                writable,
            });
        };
        if wanted.read_only {
            add(Path::new("/"), READ_ONLY.set, false);
            let not_files = NOT_FILES.iter().map(Path::new);
            not_files.for_each(|path| add(path, 0, true));
        }
        for mount in mounts {
            if let Some((path, is_scratch)) = engines_tree(mount) {
                let set = Options::parse(mount)?.restricting();
                add(path, set, !is_scratch && set & READ_ONLY.set == 0);
            }
        }
        trees.sort_by_key(|tree| tree.path.components().count());
        if trees.iter().all(|tree| tree.set == 0) {
            trees.clear();
        }
        let propagation = match request.root_propagation {
            None | Some(RootPropagation::Slave) => None,
            Some(RootPropagation::Shared) => Some(MountPropagationFlags::SHARED),
            Some(RootPropagation::Private) => Some(MountPropagationFlags::PRIVATE),
            Some(RootPropagation::Unbindable) => Some(MountPropagationFlags::UNBINDABLE),
        };
        let restricts_paths = *wanted != none;
        if trees.is_empty() && !restricts_paths && propagation.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            wanted: wanted.clone(),
            trees,
            propagation,
            cwd: makes_cwd.then(|| (request.cwd.clone(), request.user)),
        }))
    }

    /// Has `mount` mount `volumes`, and restricts the view but for them, whole trees before
    /// the volumes are there, where the interface can mount them so.
    pub(crate) fn around(
        &self,
        interface: Interface,
        volumes: &[Volume],
        mount: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if interface == Interface::Classic {
            // Copies of what is read-only already would be so too.
            mount()?;
            self.restrict_trees(interface, volumes, volumes)?;
        } else {
            self.restrict_trees(interface, volumes, &[])?;
            mount()?;
        }
        restrict::make_read_only(interface, &self.wanted.read_only_paths)?;
        restrict::mask(&self.wanted.masked_paths)
    }

    /// Restricts whole trees, but for `mounted`, the volumes that are mounted already. `volumes` are all.
    fn restrict_trees(
        &self,
        interface: Interface,
        volumes: &[Volume],
        mounted: &[Volume],
    ) -> Result<(), Error> {
        if self.wanted.read_only {
            self.make_cwd(volumes);
        }
        let mut trees = Vec::new();
        for tree in &self.trees {
            let path = &tree.path;
            // Not every node has all that an engine mounts.
            let Ok(found) = in_view::open(path) else {
                continue;
            };
            if path != Path::new("/") && !mount_point::is_mount_point(found.as_fd())? {
                mount_point::bind_to_itself(found.as_fd()).context("guard", path)?;
            }
            trees.push(tree.clone());
            if tree.writable && path == Path::new(CGROUPS) {
                // Each hierarchy of version 1 is a mount.
                let mounts = mountinfo::read()?.into_iter();
                let below = mounts.filter(|m| m.mount_point.starts_with(path));
                trees.extend(
                    below
                        .filter(|m| m.mount_point != *path)
                        .map(|mount| Restriction {
                            path: mount.mount_point,
                            ..tree.clone()
                        }),
                );
            }
        }
        let except = mounted.iter().map(|volume| volume.destination.as_path());
        attributes::restrict(interface, &trees, &except.collect::<Vec<_>>())
    }

    /// Gives all mounts but `volumes`, which have their own, the propagation that is wanted. A copy of the mounts
    /// can have another one, and what is mounted in a shared mount is shared too: this comes last.
    pub(crate) fn set_propagation(&self, volumes: &[Volume]) -> Result<(), Error> {
        let Some(propagation) = self.propagation else {
            return Ok(());
        };
        let except = volumes.iter().map(|volume| volume.destination.as_path());
        attributes::propagate(propagation, &except.collect::<Vec<_>>())
    }

    /// Makes the working directory, which could not be made later. In a volume it is made when that is mounted.
    fn make_cwd(&self, volumes: &[Volume]) {
        let in_volume = |cwd: &Path| {
            let mut destinations = volumes.iter().map(|volume| &volume.destination);
            destinations.any(|destination| cwd.starts_with(destination))
        };
        if let Some((cwd, user)) = &self.cwd
            && !in_volume(cwd)
        {
            // The process changes to it once the volumes are mounted, and that fails with the reason.
            let _ = in_view::make_and_change_dir(cwd, *user);
        }
    }
}
