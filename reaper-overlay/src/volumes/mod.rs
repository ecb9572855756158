//! The volumes of one container: taken from the host's namespace, moved into its own.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use reaper_spec::{DnsMode, ImageMode, Mount};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use crate::{
    Error, Scope, ViewRequest,
    base::Base,
    error::Context,
    image::Image,
    sys::{self, MountAttr},
};

pub(crate) mod mount_point;
pub(crate) mod nested;
pub(crate) mod options;
pub(crate) mod points;
pub(crate) mod resolve;

use options::{Options, Recursion};
use points::Owner;

/// Where the image's root is shown in the mode `at`.
pub(crate) const IMAGE_ROOT: &str = "/.reaper-image";

/// Whose content `dns` decides about.
const NAME_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// One volume, detached from the host's tree.
#[derive(Debug)]
pub(crate) struct Volume {
    tree: OwnedFd,
    /// What it shows, by way of the host: writable also where the volume is not.
    source: Option<OwnedFd>,
    /// In the view, symlinks resolved as far as the scope goes.
    pub(crate) destination: PathBuf,
    pub(crate) directory: bool,
}

impl Volume {
    /// Mounts it in the calling process's namespace.
    pub(crate) fn mount(&self) -> Result<(), Error> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        move_mount(&self.tree, "", CWD, &self.destination, flags)
            .context("mount the volume on", &self.destination)
    }
}

/// Opens the volumes of `request` and makes their mount points in the scope.
pub(crate) fn open(
    request: &ViewRequest,
    host_paths: &[PathBuf],
    base: &Base,
    scope: &Scope,
    pin: &fs::File,
) -> Result<Vec<Volume>, Error> {
    let mut volumes = open_all(request)?;
    let owner = Owner::Scope(scope);
    place(&mut volumes, request, base, owner, Some(pin), host_paths)?;
    Ok(volumes)
}

/// Finds or makes the mount points of `volumes`, for `owner`.
pub(crate) fn place(
    volumes: &mut [Volume],
    request: &ViewRequest,
    base: &Base,
    owner: Owner<'_>,
    pin: Option<&fs::File>,
    host_paths: &[PathBuf],
) -> Result<(), Error> {
    if volumes.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = volumes
        .iter()
        .map(|v| (v.destination.clone(), v.directory))
        .collect();
    let id = request.unique_id();
    let places = points::acquire(base, owner, &id, pin, host_paths, &wanted)?;
    for (at, place) in places.into_iter().enumerate() {
        let mut note = |path: &Path, missing| points::use_inside(base, owner, &id, path, missing);
        let made = match place.inside {
            Some(outer) => {
                let directory = volumes[at].directory;
                nested::make(&volumes[outer], &place.path, directory, &mut note)
            }
            None => Ok(()),
        };
        if let Err(error) = made {
            points::release(base, owner, &id)?;
            return Err(error);
        }
        volumes[at].destination = place.path;
    }
    Ok(())
}

/// Opens the volumes of `request`, without a place for them yet.
pub(crate) fn open_all(request: &ViewRequest) -> Result<Vec<Volume>, Error> {
    let mounts = request.mounts.iter();
    let mut volumes = mounts
        .filter(|mount| is_wanted(mount, request.dns))
        .map(open_one)
        .collect::<Result<Vec<_>, _>>()?;
    if request.image == ImageMode::At {
        volumes.push(image(&Image::of(request)?, IMAGE_ROOT.into())?);
    }
    Ok(volumes)
}

/// The root of an image as a volume, read-only.
pub(crate) fn image(image: &Image, destination: PathBuf) -> Result<Volume, Error> {
    let mount = Mount {
        destination,
        kind: Some("bind".to_owned()),
        source: Some(image.root.clone()),
        options: vec!["rbind".to_owned(), "rro".to_owned()],
    };
    if image.is_there() {
        return open_one(&mount);
    }
    let tree = image.detached()?;
    apply(&tree, &Options::parse(&mount)?, &mount.destination)?;
    Ok(Volume {
        tree,
        source: None,
        destination: mount.destination,
        directory: true,
    })
}

/// Whether a mount of the bundle has a meaning here: `/proc`, `/sys`, `/dev` and `/run` are the
/// host's, so what an engine mounts there by default to make them the container's own has none.
pub(crate) fn is_wanted(mount: &Mount, dns: DnsMode) -> bool {
    let to = mount.destination.as_path();
    if NAME_FILES.iter().any(|file| to == Path::new(file)) {
        return dns == DnsMode::Pod;
    }
    let bind = mount
        .options
        .iter()
        .any(|option| option == "bind" || option == "rbind");
    match mount.kind.as_deref() {
        Some("proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "devpts" | "devtmpfs")
            if !bind =>
        {
            false
        }
        Some("tmpfs") if !bind => {
            !["/dev", "/run", "/proc", "/sys"]
                .iter()
                .any(|tree| to == Path::new(tree))
                && to != Path::new("/dev/shm")
                && !to.starts_with("/proc")
                && !to.starts_with("/sys")
        }
        // Engines bind the host's `/sys/fs/cgroup`; it is there already.
        _ => !to.starts_with("/sys/fs/cgroup"),
    }
}

fn open_one(mount: &Mount) -> Result<Volume, Error> {
    let destination = normal(&mount.destination)?;
    let options = Options::parse(mount)?;
    let (tree, source) = match options.bind {
        Some(recursion) => {
            let source = mount.source.as_deref();
            let source = source.ok_or_else(|| Error::MountSource {
                destination: destination.clone(),
            })?;
            let tree = clone_tree(source, recursion)?;
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let source = rustix::fs::open(source, flags, Mode::empty())
                .context("open the source", source)?;
            (tree, Some(source))
        }
        None => (new_filesystem(mount, &options)?, None),
    };
    apply(&tree, &options, &destination)?;
    let stat = fstat(&tree).context("stat the source of", &destination)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(Volume {
        tree,
        source,
        destination,
        directory,
    })
}

/// A path without `.` and `..`; what `..` would mean is up to symlinks that others can change.
fn normal(path: &Path) -> Result<PathBuf, Error> {
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    let forbidden = ["/proc", "/sys"].iter().any(|tree| path.starts_with(tree));
    if path.is_absolute() && plain && path != Path::new("/") && !forbidden {
        Ok(path.components().collect())
    } else {
        Err(Error::MountDestination {
            destination: path.to_owned(),
        })
    }
}

pub(crate) fn clone_tree(source: &Path, recursion: Recursion) -> Result<OwnedFd, Error> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursion == Recursion::All {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, source, flags).context("open the source", source)
}

fn new_filesystem(mount: &Mount, options: &Options) -> Result<OwnedFd, Error> {
    let kind = mount.kind.as_deref().unwrap_or_default();
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        if let Some(source) = &mount.source {
            fsconfig_set_string(context, "source", source.as_path())?;
        }
        for (key, value) in &options.data {
            match value {
                Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str())?,
                None => fsconfig_set_flag(context, key.as_str())?,
            }
        }
        fsconfig_create(context)?;
        fsmount(
            context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    };
    make().context("make a filesystem for", &mount.destination)
}

fn apply(tree: &OwnedFd, options: &Options, destination: &Path) -> Result<(), Error> {
    let (propagation, recursion) = options
        .propagation
        .unwrap_or((nix::libc::MS_PRIVATE, Recursion::All));
    // A clone of a shared mount is its peer already.
    if propagation != nix::libc::MS_SHARED {
        let attr = MountAttr {
            propagation,
            ..MountAttr::default()
        };
        change(tree, recursion, attr, destination)?;
    }
    change(tree, Recursion::Alone, options.attr, destination)?;
    change(tree, Recursion::All, options.recursive, destination)
}

fn change(
    tree: &OwnedFd,
    recursion: Recursion,
    attr: MountAttr,
    destination: &Path,
) -> Result<(), Error> {
    if attr == MountAttr::default() {
        return Ok(());
    }
    sys::mount_setattr(tree.as_fd(), recursion == Recursion::All, attr)
        .context("set the options of the mount on", destination)
}
