//! A mount that a bundle asks for, parsed and not yet opened.

use std::path::{Component, Path, PathBuf};

use reaper_spec::{AllowedMounts, Device, ImageMode, Mount};

use super::{device, filter::wanted, options::Options};
use crate::{
    contract::{Error, ViewRequest, user::Privilege},
    linux::syscall::MountAttr,
    mount::{
        image::{self, Image},
        interface::Recursion,
    },
};

/// What the kernel shows of itself: the host's in every view.
const KERNEL_TREES: [&str; 2] = ["/proc", "/sys"];

/// Where the image's root is shown in the mode `at`.
pub(crate) const IMAGE_ROOT: &str = "/.reaper-image";

/// What a bundle, or the image mode `at`, wants mounted.
#[derive(Debug)]
pub(crate) struct MountRequest {
    /// As the bundle has it.
    pub(crate) mount: Mount,
    pub(crate) destination: PathBuf,
    pub(crate) options: Options,
    /// Mounted on its root first, then bound.
    pub(crate) image: Option<Image>,
    /// Made, then bound.
    pub(crate) device: Option<Device>,
    /// What may be bound.
    pub(super) allowed: Vec<AllowedMounts>,
}

impl MountRequest {
    /// Parses all mounts of `request` that mean something, and that of the image in the mode `at`.
    pub(crate) fn all(request: &ViewRequest, privilege: Privilege) -> Result<Vec<Self>, Error> {
        let mut found = Self::of_bundle(request, privilege)?;
        if request.image == ImageMode::MountAt {
            let image = match privilege {
                Privilege::Root => Image::of(request)?,
                Privilege::User => image::plain(request)?,
            };
            found.push(Self::of_image(&image, IMAGE_ROOT.into())?);
        }
        Ok(found)
    }

    /// Parses all mounts and devices of `request` that mean something.
    pub(crate) fn of_bundle(
        request: &ViewRequest,
        privilege: Privilege,
    ) -> Result<Vec<Self>, Error> {
        let requests = wanted(request).map(|mount| {
            let mut parsed = Self::of(mount.clone())?;
            parsed.allowed.clone_from(&request.allowed_mounts);
            Ok(parsed)
        });
        let changes_something =
            |request: &Result<Self, Error>| request.as_ref().map_or(true, Self::changes_something);
        let devices = request.devices.iter();
        let missing = devices.filter(|device| !device::is_there(device, privilege));
        requests
            .filter(changes_something)
            .chain(missing.map(|device| Self::of_device(device, privilege)))
            .collect()
    }

    fn of_device(device: &Device, privilege: Privilege) -> Result<Self, Error> {
        if privilege == Privilege::User {
            return Err(Error::NeedsRoot {
                what: format!("the device {}", device.path.display()),
            });
        }
        let mut request = Self::of(Mount {
            destination: device.path.clone(),
            typ: Some("device".to_owned()),
            source: None,
            options: Vec::new(),
        })?;
        request.device = Some(device.clone());
        Ok(request)
    }

    /// The bind that shows the root of `image`, read-only.
    pub(crate) fn of_image(image: &Image, destination: PathBuf) -> Result<Self, Error> {
        let mut request = Self::of(Mount {
            destination,
            typ: Some("bind".to_owned()),
            source: Some(image.root.clone()),
            options: vec!["rbind".to_owned(), "rro".to_owned()],
        })?;
        request.image = (!image.is_there()).then(|| image.clone());
        Ok(request)
    }

    fn of(mount: Mount) -> Result<Self, Error> {
        let mut options = Options::parse(&mount)?;
        let is_same = is_same_tree(&mount, &options);
        let destination = normal(&mount.destination, is_same)?;
        if is_same && is_kernels(&destination) {
            // What is mounted below stays in the view.
            options.bind = Some(Recursion::All);
        }
        if options.bind.is_some() && mount.source.is_none() {
            return Err(Error::MountSource { destination });
        }
        if options.bind.is_none() && mount.typ.as_deref() == Some("cgroup") {
            return Err(Error::CgroupMount { destination });
        }
        Ok(Self {
            mount,
            destination,
            options,
            image: None,
            device: None,
            allowed: Vec::new(),
        })
    }

    /// Whether it is more than what the view has there anyway: one of the kernel's trees where it is, and
    /// with options that make no difference.
    fn changes_something(&self) -> bool {
        let sets = |attr: MountAttr| attr.set != 0;
        let is_same = is_same_tree(&self.mount, &self.options);
        !is_same
            || !is_kernels(&self.destination)
            || sets(self.options.attr)
            || sets(self.options.recursive)
    }

    /// What is bound, and how. `None` if a filesystem is made.
    pub(crate) fn bound(&self) -> Option<(&Path, Recursion)> {
        Some((self.mount.source.as_deref()?, self.options.bind?))
    }
}

/// What may be mounted on in `/proc` by what is not there anyway: files that programs read about the machine, of
/// which another one can show less. They are those that runc allows.
const IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

fn is_allowed_in_proc(path: &Path) -> bool {
    !path.starts_with("/proc") || IN_PROC.iter().any(|file| path == Path::new(file))
}

/// Refuses the place where the destination of a mount has led, which [`MountRequest::all`] has checked by its name.
pub(crate) fn check_place(place: &Path, destination: &Path) -> Result<(), Error> {
    if place == destination || is_allowed_in_proc(place) {
        return Ok(());
    }
    let destination = place.to_owned();
    Err(Error::MountDestination { destination })
}

fn is_kernels(path: &Path) -> bool {
    KERNEL_TREES.iter().any(|tree| path.starts_with(tree))
}

/// Whether a tree of the host is asked for where it is.
fn is_same_tree(mount: &Mount, options: &Options) -> bool {
    options.bind.is_some() && mount.source.as_deref() == Some(&mount.destination)
}

/// A path without `.` and `..`; what `..` would mean is up to symlinks that others can change. In `/proc` only
/// what is there already can be mounted, with other options, and a few files.
fn normal(path: &Path, is_same: bool) -> Result<PathBuf, Error> {
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    let allowed = is_same || is_allowed_in_proc(path);
    if path.is_absolute() && plain && path != Path::new("/") && allowed {
        Ok(path.components().collect())
    } else {
        Err(Error::MountDestination {
            destination: path.to_owned(),
        })
    }
}
