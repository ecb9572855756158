//! The host's filesystem, as it is.

use std::path::{Path, PathBuf};

use super::{place_volumes::place, restrictions::Restrictions};
use crate::{
    contract::{Context, Error, FilesystemIsolation, View, ViewRequest, user::Privilege},
    linux::{
        in_use::{self, InUse},
        mount_point::kind_is_right,
        namespace::{Namespaces, unshare_mounts},
        resolve::{Volumes, in_view, resolve, without_links},
    },
    mount::{image::Image, interface::Interface, own_trees::OwnTrees},
    scope::mount_points::{self, MountPointUser},
    store::base::Base,
    volume::{
        mount,
        open::{Volume, open_all},
        request::{MountRequest, check_place},
    },
};

/// No isolation: processes see and change the host's filesystem.
///
/// A container that brings no volumes runs in the host's own mount namespace, at no cost. Volumes
/// are mounted for the container alone, in a copy of that namespace. Missing mount points are made
/// on the host, counted below the overlay's base, and removed with their last user. Unlike in an
/// overlay they are not guarded: who removes one on the host takes away what is mounted on it.
/// What engines mount by default (`/proc`, `/dev`, `/sys`, `/run` and what lies below) is the
/// host's already and is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostFilesystem;

pub(crate) struct HostView {
    id: String,
    /// Where its mount points are counted, if they are.
    base: Option<Base>,
    cwd: PathBuf,
    volumes: Vec<Volume>,
    /// The mount points, which other bases must not remove meanwhile.
    in_use: Vec<InUse>,
    image: Option<PathBuf>,
    namespace: Option<Namespaces>,
    /// Whether the container has mounts of its own.
    own: bool,
    own_trees: OwnTrees,
    interface: Interface,
    /// Done in a namespace of the container's own.
    restrict: Option<Restrict>,
    restrictions: Option<Restrictions>,
}

/// What is done to the mounts of a view, but for those at and below the paths that it gets.
pub(crate) type Restrict = Box<dyn Fn(Interface, &[&Path]) -> Result<(), Error>>;

impl HostView {
    pub(crate) fn new(request: &ViewRequest, restrict: Option<Restrict>) -> Result<Self, Error> {
        let image = match request.image {
            reaper_spec::ImageMode::None => None,
            // There is nothing to lie beneath; its root can be read where it is.
            _ => Some(Image::of(request)?),
        };
        let interface = Interface::ask();
        let own_trees = OwnTrees::of(request);
        let mut requests = MountRequest::of_bundle(request, Privilege::of_process())?;
        let restrictions = Restrictions::of(request, false)?;
        if let Some(image) = image.as_ref().filter(|image| !image.is_there()) {
            requests.push(MountRequest::of_image(image, image.root.clone())?);
        }
        let mut volumes = open_all(requests, interface)?;
        let (base, in_use) = place_on_host(&mut volumes, request)?;
        Ok(Self {
            id: request.unique_id(),
            base,
            cwd: request.cwd.clone(),
            own: request.own_mounts
                || own_trees.any()
                || !volumes.is_empty()
                || restrict.is_some()
                || restrictions.is_some(),
            own_trees,
            volumes,
            in_use,
            image: image.map(|image| image.root),
            namespace: None,
            interface,
            restrict,
            restrictions,
        })
    }

    fn enter_kept(&self) -> Result<(), Error> {
        let namespace = self.namespace.as_ref();
        namespace.map_or(Ok(()), |namespace| {
            namespace.enter().context("enter the view of", &self.id)
        })
    }

    fn enter_first(&self) -> Result<(), Error> {
        unshare_mounts()?;
        self.own_trees.renew()?;
        if self.interface != Interface::Classic {
            self.restrict_host(&[])?;
        }
        match &self.restrictions {
            Some(restrictions) => {
                let mount = || self.mount_volumes();
                restrictions.around(self.interface, &self.volumes, mount)?;
                restrictions.set_propagation(&self.volumes)
            }
            None => self.mount_volumes(),
        }
    }

    fn restrict_host(&self, kept: &[&Path]) -> Result<(), Error> {
        match &self.restrict {
            Some(restrict) => restrict(self.interface, kept),
            None => Ok(()),
        }
    }

    fn mount_volumes(&self) -> Result<(), Error> {
        if self.interface == Interface::Classic {
            // Copies of what is read-only already would be so too.
            let found = mount::find(&self.volumes)?;
            for (volume, found) in self.volumes.iter().zip(&found) {
                volume.mount(found.as_ref())?;
            }
            let own = self
                .volumes
                .iter()
                .map(|volume| volume.destination.as_path());
            return self.restrict_host(&own.collect::<Vec<_>>());
        }
        self.volumes
            .iter()
            .try_for_each(|volume| volume.mount(None))
    }
}

/// Finds or makes the mount points of `volumes`. Where all exist and none was ever recorded, there
/// is nothing to record.
fn place_on_host(
    volumes: &mut [Volume],
    request: &ViewRequest,
) -> Result<(Option<Base>, Vec<InUse>), Error> {
    if volumes.is_empty() {
        return Ok((None, Vec::new()));
    }
    let needs_base = !all_exist(volumes)?;
    let base = if needs_base || mount_points::are_known(&request.overlay.base)? {
        Some(Base::prepare(&request.overlay)?)
    } else {
        Base::if_ready(&request.overlay)?
    };
    let Some(base) = base else {
        return Ok((None, Vec::new()));
    };
    let id = request.unique_id();
    let in_use = place(volumes, MountPointUser::on_host(&base, &id), None, &[])?;
    Ok((Some(base), in_use))
}

/// Whether all mount points are there, made by no Reaper, and in none of the volumes; then they are what the
/// volumes are to be mounted on.
fn all_exist(volumes: &mut [Volume]) -> Result<bool, Error> {
    let mut targets = Volumes::default();
    let mut found = Vec::new();
    for volume in volumes.iter() {
        let resolved = resolve(&volume.destination, &targets)?;
        let is_made = in_use::marked(&resolved.path).is_some();
        if !resolved.missing.is_empty() || resolved.inside.is_some() || is_made {
            return Ok(false);
        }
        check_place(&resolved.path, &volume.destination)?;
        let is_dir = without_links(&resolved.path)?.is_some_and(|found| found.is_dir());
        kind_is_right(&resolved.path, volume.directory, is_dir)?;
        targets.push(resolved.path.clone(), volume.writable());
        found.push(resolved.path);
    }
    for (volume, path) in volumes.iter_mut().zip(found) {
        // A file of names is mounted on a link itself.
        if !volume.stays_on_link {
            volume.destination = path;
        }
    }
    Ok(true)
}

/// Gives back the mount points that a view whose monitor was killed has made on the host.
pub(crate) fn collect(request: &ViewRequest) -> Result<(), Error> {
    match Base::if_ready(&request.overlay)? {
        Some(base) => MountPointUser::on_host(&base, &request.unique_id()).release(),
        None => Ok(()),
    }
}

impl FilesystemIsolation for HostFilesystem {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        Ok(Box::new(HostView::new(request, None)?))
    }

    fn cleanup(&self, request: &ViewRequest) -> Result<(), Error> {
        collect(request)
    }
}

impl View for HostView {
    fn enter_init(&self) -> Result<(), Error> {
        match &self.namespace {
            Some(_) => self.enter_kept()?,
            None if self.own => self.enter_first()?,
            None => {}
        }
        in_view::change_dir(&self.cwd).context("change to", &self.cwd)
    }

    fn enter_exec(&self) -> Result<(), Error> {
        self.enter_kept()?;
        in_view::change_dir_or_root(&self.cwd)
    }

    fn keep_namespace(&mut self, pid: u32) -> Result<(), Error> {
        if self.own {
            self.namespace = Some(Namespaces::of(pid)?);
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
        self.in_use.clear();
        if let Some(base) = &self.base {
            MountPointUser::on_host(base, &self.id).release()?;
            self.base = None;
        }
        Ok(())
    }
}
