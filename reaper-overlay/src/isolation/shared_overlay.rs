//! One overlay over the host's root for each scope.

use std::{fs, io, path::PathBuf};

use reaper_spec::{ImageMode, KeepConfig};

use super::{overlay_view::SharedView, place_volumes, shared_overlay_as_user};
use crate::{
    contract::{
        Context, Error, FilesystemIsolation, Housekeeping, Scope, View, ViewRequest,
        host_paths::HOST_TREES, user,
    },
    linux::files::exists,
    mount::{
        image::{self, Image},
        interface::Interface,
    },
    scope::{
        join::{Member, Wanted},
        join_as_user,
        mount_points::{self, Owner},
        remove::remove_unused,
        unused::collect,
    },
    store::{base::Base, paths::ScopePaths},
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
    /// The overlay as the configuration in each request describes it. What is set here is added to
    /// that.
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

    /// The paths that are shown as they are, where they are, and those that do not exist. The
    /// host's own trees need not be named.
    fn shown(&self, request: &ViewRequest) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut shown, mut missing) = (Vec::new(), Vec::new());
        for path in self.host_paths.iter().chain(&request.overlay.host_paths) {
            match fs::canonicalize(path) {
                Ok(path) => shown.push(path),
                Err(_) => missing.push(path.clone()),
            }
        }
        shown.retain(|path| !HOST_TREES.iter().any(|tree| path.starts_with(tree)));
        (shown, missing)
    }
}

/// The paths without symlinks, as the table of mounts has them.
fn canonical(paths: &[PathBuf]) -> Vec<PathBuf> {
    let canonical = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    paths.iter().map(canonical).collect()
}

fn not_there(missing: &[PathBuf]) -> Option<String> {
    let names: Vec<_> = missing
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    (!names.is_empty()).then(|| format!("overlay: on this node there is no {}", names.join(", ")))
}

impl FilesystemIsolation for SharedOverlay {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        let (host_paths, missing) = self.shown(request);
        let remove_with_last = self.remove_with_last || request.overlay.remove_with_last;
        let unprotected = canonical(&request.overlay.unprotected);
        let masks = &request.overlay.masks;
        if user::is_needed() {
            let wanted = join_as_user::Wanted {
                masks,
                image: image::to_be_beneath(request)?,
                host_paths: &host_paths,
                unprotected: &unprotected,
            };
            return shared_overlay_as_user::prepare(
                request,
                &wanted,
                not_there(&missing),
                remove_with_last,
            );
        }
        let scope = Scope::of(request)?;
        let base = Base::prepare(&request.overlay)?;
        let image = match request.image {
            ImageMode::Beneath => Some(Image::of(request)?),
            _ => None,
        };
        let wanted = Wanted {
            masks,
            host_paths: &host_paths,
            unprotected: &unprotected,
            image,
            interface: Interface::ask(),
        };
        let is_new = !exists(&ScopePaths::new(&base.path, &scope).data)?;
        let mut member = Member::join(&base, &scope, &request.unique_id(), &wanted)?;
        member.warnings.extend(not_there(&missing));
        let volumes = place_volumes::open(request, &host_paths, &base, &scope, &member.pin);
        let volumes = match volumes {
            Ok(volumes) => volumes,
            Err(error) => {
                // The first error says what went wrong; what cannot be removed now, `collect` will.
                let _ = member.membership.leave();
                drop(member);
                if is_new && scope.is_container() {
                    let _ = remove_unused(&base, &scope);
                }
                return Err(error);
            }
        };
        Ok(Box::new(SharedView::new(
            base,
            scope,
            request,
            member,
            volumes,
            remove_with_last,
        )))
    }

    fn collect(&self, request: &ViewRequest) -> Result<(), Error> {
        if user::is_needed() {
            return shared_overlay_as_user::collect(request);
        }
        let Some(base) = Base::open(&request.overlay)? else {
            return Ok(());
        };
        let scope = Scope::of(request)?;
        let id = request.unique_id();
        mount_points::release(&base, Owner::Scope(&scope), &id)?;
        let paths = ScopePaths::new(&base.path, &scope);
        crate::linux::files::remove_file(&paths.members().join(id))
    }

    fn forget(&self, request: &ViewRequest) -> Result<(), Error> {
        self.collect(request)?;
        let Some(scope) = Scope::deleted_with(request)? else {
            return Ok(());
        };
        let Some(base) = Base::open(&request.overlay)? else {
            return Ok(());
        };
        let paths = ScopePaths::new(&base.path, &scope);
        if !exists(&paths.data)? && !exists(&paths.live)? {
            return Ok(());
        }
        // A persistent base whose scopes nobody has used since the boot.
        let base = Base::prepare(&request.overlay)?;
        // First the mark: who leaves from now on looks for it.
        match fs::write(paths.forgotten(), "") {
            // It is not mounted, so nobody is in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            marked => marked.context("write", paths.forgotten())?,
        }
        remove_unused(&base, &scope)
    }

    fn housekeeping(&self, request: &ViewRequest) -> Option<Housekeeping> {
        let keep = request.overlay.keep;
        if keep == KeepConfig::default() {
            return None;
        }
        let config = request.overlay.clone();
        Some(Box::new(move || collect(&config, keep.into()).map(drop)))
    }
}
