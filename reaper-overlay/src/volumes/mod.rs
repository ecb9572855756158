//! The volumes of one container: taken from the host's namespace, moved into its own.

use std::{
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
    entrance::Enter,
    error::Context,
    image::Image,
    sys::{self, MountAttr},
};

mod books;
pub(crate) mod mount_point;
pub(crate) mod nested;
pub(crate) mod options;
pub(crate) mod points;
pub(crate) mod resolve;

use options::{Options, Recursion};
use points::Owner;

/// Where the image's root is shown in the mode `at`.
pub(crate) const IMAGE_ROOT: &str = "/.reaper-image";

/// What the steps are called in which the kernel may refuse a volume.
pub(crate) const OPEN_SOURCE: &str = "open the source";
pub(crate) const MAKE_FILESYSTEM: &str = "make a filesystem for";
pub(crate) const SET_OPTIONS: &str = "set the options of the mount on";

/// Whose content `dns` decides about.
const NAME_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// One volume, detached from the host's tree.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) tree: OwnedFd,
    /// What it shows, by way of the host: writable also where the volume is not.
    pub(crate) source: Option<OwnedFd>,
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
    enter: Enter<'_>,
) -> Result<Vec<Volume>, Error> {
    let mut volumes = open_all(request)?;
    let owner = Owner::Scope(scope);
    place(&mut volumes, request, base, owner, Some(enter), host_paths)?;
    Ok(volumes)
}

/// Finds or makes the mount points of `volumes`, for `owner`.
pub(crate) fn place(
    volumes: &mut [Volume],
    request: &ViewRequest,
    base: &Base,
    owner: Owner<'_>,
    enter: Option<Enter<'_>>,
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
    let places = points::acquire(base, owner, &id, enter, host_paths, &wanted)?;
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
    let mut volumes = wanted(request)
        .map(open_one)
        .collect::<Result<Vec<_>, _>>()?;
    if request.image == ImageMode::At {
        volumes.push(image(&Image::of(request)?, IMAGE_ROOT.into())?);
    }
    Ok(volumes)
}

/// The mounts of `request` that mean something here.
pub(crate) fn wanted(request: &ViewRequest) -> impl Iterator<Item = &Mount> {
    let mounts = request.mounts.iter();
    mounts.filter(|mount| is_wanted(mount, request.dns))
}

/// The bind that shows the root of an image, read-only.
pub(crate) fn image_mount(image: &Image, destination: PathBuf) -> Mount {
    Mount {
        destination,
        kind: Some("bind".to_owned()),
        source: Some(image.root.clone()),
        options: vec!["rbind".to_owned(), "rro".to_owned()],
    }
}

/// The root of an image as a volume, read-only.
pub(crate) fn image(image: &Image, destination: PathBuf) -> Result<Volume, Error> {
    let mount = image_mount(image, destination);
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
fn is_wanted(mount: &Mount, dns: DnsMode) -> bool {
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

/// What a mount of a bundle asks for, understood and not yet looked for.
pub(crate) struct Wish<'a> {
    pub(crate) mount: &'a Mount,
    pub(crate) destination: PathBuf,
    pub(crate) options: Options,
}

impl<'a> Wish<'a> {
    pub(crate) fn of(mount: &'a Mount) -> Result<Self, Error> {
        Ok(Self {
            mount,
            destination: normal(&mount.destination)?,
            options: Options::parse(mount)?,
        })
    }

    /// What is to be bound, and how. `None` if a filesystem is to be made.
    pub(crate) fn bound(&self) -> Result<Option<(&'a Path, Recursion)>, Error> {
        let Some(recursion) = self.options.bind else {
            return Ok(None);
        };
        let source = self.mount.source.as_deref();
        let source = source.ok_or_else(|| Error::MountSource {
            destination: self.destination.clone(),
        })?;
        Ok(Some((source, recursion)))
    }
}

pub(crate) fn open_one(mount: &Mount) -> Result<Volume, Error> {
    let wish = Wish::of(mount)?;
    let (tree, source) = match wish.bound()? {
        Some((source, recursion)) => (clone_tree(source, recursion)?, Some(open_source(source)?)),
        None => (new_filesystem(mount, &wish.options)?, None),
    };
    let Wish {
        destination,
        options,
        ..
    } = wish;
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

/// The source of a bind, by way of the host.
pub(crate) fn open_source(source: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(source, flags, Mode::empty()).context(OPEN_SOURCE, source)
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
    open_tree(CWD, source, flags).context(OPEN_SOURCE, source)
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
    make().context(MAKE_FILESYSTEM, &mount.destination)
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
        .context(SET_OPTIONS, destination)
}
