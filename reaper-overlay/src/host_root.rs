//! The host's filesystem, as it is.

use std::{fs::File, path::PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::{
    Error, FilesystemIsolation, View, ViewRequest,
    error::Context,
    shared_view::{change_near, change_to, namespace_of, own_namespace},
    volumes::{self, Volume},
};

/// No isolation: processes see and change the host's filesystem.
///
/// A container that brings no volumes runs in the host's own mount namespace, at no cost. Volumes
/// are mounted for the container alone, in a copy of that namespace, on directories and files that
/// exist: making mount points would change the host for everybody, so missing ones are an error.
/// What engines mount by default (`/proc`, `/dev`, `/sys`, `/run` and what lies below) is the
/// host's already and is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostRoot;

pub(crate) struct HostView {
    id: String,
    cwd: PathBuf,
    volumes: Vec<Volume>,
    image: Option<PathBuf>,
    namespace: Option<File>,
    /// Whether the container has mounts of its own.
    own: bool,
    /// Done in a namespace of the container's own, before its volumes.
    restrict: Option<Restrict>,
}

/// What is done to the mounts of a view before its volumes come.
pub(crate) type Restrict = Box<dyn Fn() -> Result<(), Error>>;

impl HostView {
    pub(crate) fn new(request: &ViewRequest, restrict: Option<Restrict>) -> Result<Self, Error> {
        let image = match request.image {
            reaper_spec::ImageMode::Ignore => None,
            // There is nothing to lie beneath; its root can be read where it is.
            _ => Some(request.rootfs.clone().ok_or(Error::NoImage)?),
        };
        let mut plain = request.clone();
        plain.image = reaper_spec::ImageMode::Ignore;
        let volumes = volumes::open_all(&plain)?;
        let mut missing = Vec::new();
        let mut places: Vec<PathBuf> = Vec::new();
        for volume in &volumes {
            // What lies in another volume is looked for there, when it is mounted.
            let nested = places
                .iter()
                .any(|place| volume.destination.starts_with(place));
            places.push(volume.destination.clone());
            match std::fs::metadata(&volume.destination) {
                _ if nested => {}
                Ok(there) if there.is_dir() == volume.directory => {}
                Ok(_) => {
                    let destination = volume.destination.clone();
                    return Err(Error::MountKind {
                        destination,
                        directory: volume.directory,
                    });
                }
                Err(_) => missing.push(volume.destination.clone()),
            }
        }
        if !missing.is_empty() {
            return Err(Error::MissingMountPoints { paths: missing });
        }
        Ok(Self {
            id: request.id.as_str().to_owned(),
            cwd: request.cwd.clone(),
            own: !volumes.is_empty() || restrict.is_some(),
            volumes,
            image,
            namespace: None,
            restrict,
        })
    }

    fn enter_first(&self) -> Result<(), Error> {
        own_namespace()?;
        if let Some(restrict) = &self.restrict {
            restrict()?;
        }
        self.volumes.iter().try_for_each(Volume::mount)
    }
}

impl FilesystemIsolation for HostRoot {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        Ok(Box::new(HostView::new(request, None)?))
    }

    fn collect(&self, _request: &ViewRequest) -> Result<(), Error> {
        Ok(())
    }
}

impl View for HostView {
    fn enter(&self, first: bool) -> Result<(), Error> {
        if let Some(namespace) = &self.namespace {
            setns(namespace, CloneFlags::CLONE_NEWNS).context("enter the view of", &self.id)?;
        } else if self.own && first {
            self.enter_first()?;
        }
        if first {
            change_to(&self.cwd)
        } else {
            change_near(&self.cwd)
        }
    }

    fn entered(&mut self, pid: u32) -> Result<(), Error> {
        if self.own {
            self.namespace = Some(namespace_of(pid)?);
            self.volumes.clear();
        }
        Ok(())
    }

    fn environment(&self) -> Vec<String> {
        let image = self.image.as_ref();
        image
            .map(|root| format!("REAPER_IMAGE_ROOT={}", root.display()))
            .into_iter()
            .collect()
    }

    fn release(&mut self) -> Result<(), Error> {
        self.namespace = None;
        self.volumes.clear();
        Ok(())
    }
}
