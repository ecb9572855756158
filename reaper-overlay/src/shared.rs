//! One overlay over the host's root for each scope.

use std::path::PathBuf;

use reaper_spec::ImageMode;

use crate::{
    Error, FilesystemIsolation, Scope, View, ViewRequest,
    base::Base,
    live::{Alone, Member, Wanted},
    overlayfs::Interface,
    scope::ScopePaths,
    shared_view::SharedView,
    volumes::{self, points},
};

/// The default isolation: the host's root read-only beneath a layer that takes all writes.
///
/// Everything of the same [`Scope`] shares one layer, and sees each other's writes at once; other
/// scopes and the host never do. Volumes are mounted for one container alone.
///
/// It protects the node from accidents. It is no security boundary against a process that is root
/// with all capabilities: such a process finds the host's root through `/proc/1/root`.
#[derive(Debug, Clone, Default)]
pub struct SharedOverlay {
    host_paths: Vec<PathBuf>,
    remove_with_last: bool,
}

impl SharedOverlay {
    /// The overlay as the configuration in each request describes it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows these paths of the host as they are, writable, in every scope that is made from now
    /// on. A unix socket below `/var` or `/tmp` can be connected to only this way.
    #[must_use]
    pub fn with_host_paths(mut self, paths: Vec<PathBuf>) -> Self {
        self.host_paths = paths;
        self
    }

    /// Removes a scope, with all that was written in it, when its last member leaves.
    #[must_use]
    pub fn remove_with_last_member(mut self) -> Self {
        self.remove_with_last = true;
        self
    }
}

impl FilesystemIsolation for SharedOverlay {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Unprivileged);
        }
        let scope = Scope::of(request)?;
        let base = Base::prepare(&request.overlay)?;
        let image = match request.image {
            ImageMode::Beneath => Some(request.rootfs.clone().ok_or(Error::NoImage)?),
            _ => None,
        };
        let wanted = Wanted {
            masks: &request.overlay.masks,
            host_paths: &self.host_paths,
            image,
            interface: Interface::Best,
        };
        let member = Member::join(&base, &scope, request.id.as_str(), &wanted)?;
        let volumes = volumes::open(request, &self.host_paths, &base, &scope, &member.pin);
        let volumes = match volumes {
            Ok(volumes) => volumes,
            Err(error) => {
                // The first error says what went wrong; what cannot be removed now, `collect` will.
                let _ = member.leave();
                return Err(error);
            }
        };
        Ok(Box::new(SharedView::new(
            base,
            scope,
            request,
            member,
            volumes,
            self.remove_with_last,
        )))
    }

    fn collect(&self, request: &ViewRequest) -> Result<(), Error> {
        let Some(base) = Base::open(&request.overlay)? else {
            return Ok(());
        };
        let scope = Scope::of(request)?;
        points::release(&base, &scope, request.id.as_str())?;
        let paths = ScopePaths::new(&base.path, &scope);
        crate::layers::remove_file(&paths.members().join(request.id.as_str()))
    }

    fn forget(&self, request: &ViewRequest) -> Result<(), Error> {
        self.collect(request)?;
        let scope = Scope::of(request)?;
        let sandbox = request
            .pod
            .as_deref()
            .filter(|pod| *pod == request.id.as_str());
        let its_pods = sandbox
            .map(Scope::pod)
            .transpose()?
            .is_some_and(|pod| pod == scope);
        if !scope.is_container() && !its_pods {
            return Ok(());
        }
        let Some(base) = Base::open(&request.overlay)? else {
            return Ok(());
        };
        let paths = ScopePaths::new(&base.path, &scope);
        Alone::take(&scope, &paths)?.remove(&paths)
    }
}
