//! The volumes of one container: taken from the host's namespace, moved into its own.

use std::{
    ffi::OsStr,
    fs,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use reaper_spec::{DnsMode, ImageMode, Mount};

use crate::{
    contract::{Context, Error, Scope, ViewRequest},
    entrance::Enter,
    linux::mount_point::Kind,
    mount::{image::Image, interface::Interface},
    pin::Pin,
    store::base::Base,
    volumes::points::Owner,
};

pub(crate) use crate::volumes::volume::Volume;

pub(crate) mod nested;
pub(crate) mod options;
pub(crate) mod points;
pub(crate) mod volume;
pub(crate) mod wish;

/// Where the image's root is shown in the mode `at`.
pub(crate) const IMAGE_ROOT: &str = "/.reaper-image";

/// Whose content `dns` decides about.
const NAME_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Opens the volumes of `request` and makes their mount points in the scope.
pub(crate) fn open(
    request: &ViewRequest,
    host_paths: &[PathBuf],
    base: &Base,
    scope: &Scope,
    pin: &Pin,
) -> Result<Vec<Volume>, Error> {
    let interface = match pin.keeps_host() {
        true => Interface::Classic,
        false => Interface::with_trees(),
    };
    let mut volumes = open_all(request, interface)?;
    let owner = Owner::Scope(scope);
    let enter = || pin.enter();
    place(&mut volumes, request, base, owner, Some(&enter), host_paths)?;
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
        let made = match place.inside {
            Some(outer) => {
                let mut note = |parent: BorrowedFd<'_>, name: &OsStr, missing: Option<Kind>| {
                    // A file system of the volume's own is nowhere on the host, and goes with it.
                    if !volumes[outer].is_on_host() {
                        return Ok(());
                    }
                    let path = on_host(parent, name)?;
                    points::use_inside(base, owner, &id, &path, missing)
                };
                let (to, directory) = (&place.path, volumes[at].directory);
                let outside = &volumes[outer].destination;
                match volumes[outer].writable() {
                    Some(root) => nested::make(root, outside, to, directory, &mut note),
                    None => {
                        let outside = outside.clone();
                        volumes[at].make_inside(outside);
                        Ok(())
                    }
                }
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

/// The path on the host of what is called `name` in `parent`.
fn on_host(parent: BorrowedFd<'_>, name: &OsStr) -> Result<PathBuf, Error> {
    let link = format!("/proc/self/fd/{}", parent.as_raw_fd());
    let parent = fs::read_link(&link).context("follow", link)?;
    Ok(parent.join(name))
}

/// Opens the volumes of `request`, without a place for them yet.
pub(crate) fn open_all(request: &ViewRequest, interface: Interface) -> Result<Vec<Volume>, Error> {
    let mut volumes = wanted(request)
        .map(|mount| Volume::open(mount, interface))
        .collect::<Result<Vec<_>, _>>()?;
    if request.image == ImageMode::At {
        let image = Image::of(request)?;
        volumes.push(Volume::image(&image, IMAGE_ROOT.into(), interface)?);
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
