//! A bundle on disk.

#[cfg(feature = "oci-spec")]
mod whole;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{ContainerSpec, error::Error, file};

/// An OCI bundle: a folder with a `config.json`, read and checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    path: PathBuf,
    #[cfg(feature = "oci-spec")]
    json: Vec<u8>,
    container_spec: ContainerSpec,
}

impl Bundle {
    /// Reads the bundle in the folder `path`, which is made absolute.
    ///
    /// # Errors
    /// The folder has no `config.json`, it cannot be read, is larger than [`MAX_CONFIG_SIZE`], or
    /// is refused by [`ContainerSpec::parse`].
    ///
    /// [`MAX_CONFIG_SIZE`]: crate::MAX_CONFIG_SIZE
    pub fn load(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let json = file::read(&path.join("config.json")).map_err(|error| match error {
            Error::Read { source, .. }
                if source.kind() == io::ErrorKind::NotFound && path.is_dir() =>
            {
                Error::NoConfigJson {
                    bundle: path.clone(),
                }
            }
            other => other,
        })?;
        let container_spec = ContainerSpec::parse(&json, &path)?;
        Ok(Self {
            path,
            #[cfg(feature = "oci-spec")]
            json,
            container_spec,
        })
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the bundle asks for.
    pub fn container_spec(&self) -> &ContainerSpec {
        &self.container_spec
    }

    /// What the bundle asks for.
    pub fn into_container_spec(self) -> ContainerSpec {
        self.container_spec
    }
}
