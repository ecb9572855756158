//! Opening the volumes of a request.

use reaper_spec::ImageMode;

use super::{
    filter::wanted,
    opened::{IMAGE_ROOT, Volume},
};
use crate::{
    contract::{Error, ViewRequest},
    mount::{image::Image, interface::Interface},
};

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
