//! What of its view a container cannot change, or read.

use std::path::{Path, PathBuf};

use reaper_spec::FileRestrictions;

use crate::{
    contract::{Error, ViewRequest},
    linux::{mount_point, mountinfo, namespace::Ids, resolve::in_view},
    mount::{attributes, interface::Interface, restrict},
    volume::{
        filter::{CGROUPS, engines_tree},
        open::Volume,
    },
};

/// Where a read-only view is writable nevertheless: what is there are no files.
const NOT_FILES: [&str; 3] = ["/proc", "/dev/shm", "/dev/pts"];

/// The restrictions of one container, applied in its own copy of the mounts.
#[derive(Debug)]
pub(crate) struct Restrictions {
    wanted: FileRestrictions,
    /// What stays writable in a read-only view.
    writable: Vec<PathBuf>,
    /// The working directory and whose it is, where it is made if the view lacks it.
    cwd: Option<(PathBuf, Option<Ids>)>,
}

impl Restrictions {
    /// `None` where nothing is restricted. With `makes_cwd` the view makes the working directory.
    pub(crate) fn of(request: &ViewRequest, makes_cwd: bool) -> Option<Self> {
        let wanted = &request.restrictions;
        if *wanted == FileRestrictions::default() {
            return None;
        }
        let not_files = NOT_FILES.iter().map(Path::new);
        let engines = request.mounts.iter().filter_map(|mount| {
            let (path, is_scratch) = engines_tree(mount)?;
            let stays = !is_scratch && !mount.options.iter().any(|option| option == "ro");
            stays.then_some(path)
        });
        let mut writable: Vec<_> = not_files.chain(engines).map(Path::to_owned).collect();
        writable.sort();
        writable.dedup();
        Some(Self {
            wanted: wanted.clone(),
            writable,
            cwd: makes_cwd.then(|| (request.cwd.clone(), request.user)),
        })
    }

    /// Makes the view read-only, where that is wanted, but for `mounted`, the volumes that are mounted already.
    /// `volumes` are all.
    pub(crate) fn make_read_only(
        &self,
        interface: Interface,
        volumes: &[Volume],
        mounted: &[Volume],
    ) -> Result<(), Error> {
        if !self.wanted.read_only {
            return Ok(());
        }
        // Later it could not be made. In a volume it is made when that is mounted.
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
        let writable = self.writable.iter().filter(|path| path.exists());
        let mut kept: Vec<_> = writable.cloned().collect();
        for path in &kept {
            if !mount_point::is_mount_point(path)? {
                mount_point::bind_to_itself(path)?;
            }
        }
        if kept.iter().any(|path| path == Path::new(CGROUPS)) {
            // Each hierarchy of version 1 is a mount.
            let mounts = mountinfo::read()?;
            let below = mounts.iter().map(|mount| &mount.mount_point);
            kept.extend(below.filter(|path| path.starts_with(CGROUPS)).cloned());
        }
        let kept: Vec<_> = kept.iter().map(PathBuf::as_path).collect();
        let mounted = mounted.iter().map(|volume| volume.destination.as_path());
        attributes::make_all_read_only(interface, &kept, &mounted.collect::<Vec<_>>())
    }

    /// Makes single paths read-only and hides others, once all volumes are mounted.
    pub(crate) fn restrict_paths(&self, interface: Interface) -> Result<(), Error> {
        restrict::make_read_only(interface, &self.wanted.read_only_paths)?;
        restrict::mask(&self.wanted.masked_paths)
    }
}
