//! A mount that a bundle asks for, parsed and not yet opened.

use std::path::{Component, Path, PathBuf};

use reaper_spec::{ImageMode, Mount};

use super::{filter::wanted, options::Options};
use crate::{
    contract::{Error, ViewRequest, user::Privilege},
    mount::{
        image::{self, Image},
        interface::Recursion,
    },
};

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
}

impl MountRequest {
    /// Parses all mounts of `request` that mean something, and that of the image in the mode `at`.
    pub(crate) fn all(request: &ViewRequest, privilege: Privilege) -> Result<Vec<Self>, Error> {
        let mut found = Self::of_bundle(request)?;
        if request.image == ImageMode::MountAt {
            let image = match privilege {
                Privilege::Root => Image::of(request)?,
                Privilege::User => image::plain(request)?,
            };
            found.push(Self::of_image(&image, IMAGE_ROOT.into())?);
        }
        Ok(found)
    }

    /// Parses all mounts of `request` that mean something.
    pub(crate) fn of_bundle(request: &ViewRequest) -> Result<Vec<Self>, Error> {
        wanted(request)
            .map(|mount| Self::of(mount.clone()))
            .collect()
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
        let destination = normal(&mount.destination)?;
        let options = Options::parse(&mount)?;
        if options.bind.is_some() && mount.source.is_none() {
            return Err(Error::MountSource { destination });
        }
        Ok(Self {
            mount,
            destination,
            options,
            image: None,
        })
    }

    /// What is bound, and how. `None` if a filesystem is made.
    pub(crate) fn bound(&self) -> Option<(&Path, Recursion)> {
        Some((self.mount.source.as_deref()?, self.options.bind?))
    }
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
