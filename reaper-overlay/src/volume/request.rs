//! What a mount of a bundle asks for.

use std::path::{Component, Path, PathBuf};

use reaper_spec::Mount;

use super::options::Options;
use crate::{contract::Error, mount::interface::Recursion};

/// A mount of a bundle, understood and not yet looked for.
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
