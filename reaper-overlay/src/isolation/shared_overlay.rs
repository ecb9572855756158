//! One overlay over the host's root for each scope.

use std::{fs, io, path::PathBuf};

use reaper_spec::{ImageMode, RetentionConfig};

use super::{overlay_view::OverlayView, place_volumes::place, restrictions::Restrictions};
use crate::{
    contract::{
        Context, Error, FilesystemIsolation, GarbageCollection, Scope, View, ViewRequest,
        host_paths::HOST_TREES, user::Privilege,
    },
    linux::{files::exists, namespace},
    mount::{
        image::{self, Image},
        interface::Interface,
    },
    scope::{
        join::Member,
        keep::ScopeNamespace,
        mount_points::MountPointUser,
        remove::{forget_member, remove_unused},
        scope_options::ScopeOptions,
        unused::collect,
    },
    store::{base::Base, paths::ScopePaths, scope_limit},
    volume::{
        open::{open_all, open_all_in_helper},
        request::MountRequest,
    },
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
    pub fn remove_when_unused(mut self) -> Self {
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

/// The image that is shown beneath the host's root, if one is.
fn image_beneath(request: &ViewRequest, privilege: Privilege) -> Result<Option<Image>, Error> {
    match (request.image, privilege) {
        (ImageMode::Lower, Privilege::Root) => Image::of(request).map(Some),
        (ImageMode::Lower, Privilege::User) => image::plain(request).map(Some),
        _ => Ok(None),
    }
}

/// By which system calls volumes come into the scope's namespace.
fn interface_of(namespace: &ScopeNamespace) -> Interface {
    match namespace.keeps_host() {
        true => Interface::Classic,
        false => Interface::with_trees(),
    }
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
        let unprotected = canonical(&request.overlay.unprotected);
        let scope = Scope::of(request)?;
        Base::check_limit(&request.overlay)?;
        let base = Base::prepare(&request.overlay)?;
        let options = ScopeOptions {
            masks: &request.overlay.masks,
            host_paths: &host_paths,
            unprotected: &unprotected,
            size: request.overlay.size_per_scope,
            image: image_beneath(request, base.privilege)?,
        };
        let requests = MountRequest::all(request, base.privilege)?;
        let restrictions = Restrictions::of(request, true)?;
        let opened = match base.privilege {
            // How they are opened depends on the scope's namespace.
            Privilege::Root => Err(requests),
            Privilege::User => {
                let inside = request.user.unwrap_or_else(namespace::own);
                Ok(open_all_in_helper(requests, inside)?)
            }
        };
        let paths = ScopePaths::new(&base, &scope);
        let is_own = scope.is_container() && !exists(&paths.data)?;
        let mut member = Member::join(&base, &scope, &request.unique_id(), &options)?;
        member.warnings.extend(not_there(&missing));
        if options.size.is_some() && scope_limit::limit(&paths)?.is_none() {
            member.warnings.push(format!(
                "overlay {scope}: it was made without a limit and has none: `overlay reset` makes it afresh, with \
                 overlay.size_per_scope"
            ));
        }
        if base.privilege == Privilege::User && request.overlay.size.is_some() {
            // A tmpfs in the user namespace would keep one, and would end with the last member,
            // with all that an administrator wants to look at then.
            member.warnings.push(format!(
                "overlay: size is not kept without root; the filesystem of {} is the limit",
                base.path.display()
            ));
        }
        let namespace = &member.namespace;
        let volumes = opened
            .or_else(|requests| open_all(requests, interface_of(namespace)))
            .and_then(|mut volumes| {
                let id = request.unique_id();
                let user = MountPointUser::in_scope(&base, &scope, &id);
                let in_use = place(&mut volumes, user, Some(namespace), &host_paths)?;
                Ok((volumes, in_use))
            });
        let volumes = match volumes {
            Ok(volumes) => volumes,
            Err(error) => {
                // The first error is returned; what cannot be removed now, `collect` will.
                let _ = member.membership.end(&base, &scope, is_own);
                return Err(error);
            }
        };
        let remove_with_last = self.remove_with_last || request.overlay.remove_with_last;
        let view = OverlayView::new(
            base,
            scope,
            request,
            member,
            volumes,
            remove_with_last,
            is_own,
        );
        Ok(Box::new(view.with_restrictions(restrictions)))
    }

    fn cleanup(&self, request: &ViewRequest) -> Result<(), Error> {
        let Some(base) = Base::open(&request.overlay)? else {
            return Ok(());
        };
        let scope = Scope::of(request)?;
        forget_member(&base, &scope, &request.unique_id())
    }

    fn remove(&self, request: &ViewRequest) -> Result<(), Error> {
        self.cleanup(request)?;
        let Some(scope) = Scope::deleted_with(request)? else {
            return Ok(());
        };
        let Some(base) = Base::open(&request.overlay)? else {
            return Ok(());
        };
        let paths = ScopePaths::new(&base, &scope);
        if !exists(&paths.data)? && !exists(&paths.live)? {
            return Ok(());
        }
        // A persistent base may not have been mounted since the boot.
        let base = Base::prepare(&request.overlay)?;
        // The mark comes first: a member that leaves from now on looks for it.
        match fs::write(paths.remove_when_empty(), "") {
            // The scope is not mounted, so it has no members.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            marked => marked.context("write", paths.remove_when_empty())?,
        }
        remove_unused(&base, &scope)
    }

    fn gc(&self, request: &ViewRequest) -> Option<GarbageCollection> {
        let keep = request.overlay.keep;
        if keep == RetentionConfig::default() {
            return None;
        }
        let config = request.overlay.clone();
        Some(Box::new(move || collect(&config, keep.into()).map(drop)))
    }
}
