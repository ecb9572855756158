//! The view of one container in a scope.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use reaper_spec::ImageMode;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountPropagationFlags, mount_change},
};

use super::restrictions::Restrictions;
use crate::{
    contract::{Context, Error, Scope, View, ViewRequest, user::Privilege},
    linux::{
        in_use::InUse,
        namespace::{self, Ids, Namespaces, lock, unshare_as, unshare_mounts},
        resolve::in_view,
    },
    mount::{interface::Interface, own_trees::OwnTrees, pivot},
    scope::{
        join::Member,
        keep::{ScopeNamespace, VIEW_DEPTH},
        mount_points::MountPointUser,
    },
    store::{base::Base, paths::ScopePaths, scope_limit},
    volume::{mount, open::Volume, request::IMAGE_ROOT},
};

/// What the monitor holds of a view.
pub(crate) struct OverlayView {
    base: Base,
    scope: Scope,
    id: String,
    cwd: PathBuf,
    /// The uid and gid that an ordinary user gets in the container.
    inside: Ids,
    /// The uid and gid that the first process becomes, where it becomes others than the caller's.
    user: Option<Ids>,
    image_at: bool,
    own_trees: OwnTrees,
    restrictions: Option<Restrictions>,
    member: Option<Member>,
    volumes: Vec<Volume>,
    /// Their mount points on the host, which other bases must not remove meanwhile.
    in_use: Vec<InUse>,
    had_volumes: bool,
    /// The container's own, once its first process is in them.
    namespaces: Option<Namespaces>,
    warnings: Vec<String>,
    remove_with_last: bool,
    /// Whether the scope is the container's alone, and was made for it.
    is_own: bool,
    /// Whether a quota of a project limits the scope.
    is_limited_by_project: bool,
}

impl OverlayView {
    pub(crate) fn new(
        base: Base,
        scope: Scope,
        request: &ViewRequest,
        mut member: Member,
        (volumes, in_use): (Vec<Volume>, Vec<InUse>),
        remove_with_last: bool,
        is_own: bool,
    ) -> Self {
        let paths = ScopePaths::new(&base, &scope);
        // One that cannot be looked at may have one.
        let is_limited_by_project = scope_limit::is_of_project(&paths).unwrap_or(true);
        Self {
            base,
            scope,
            id: request.unique_id(),
            cwd: request.cwd.clone(),
            inside: request.user.unwrap_or_else(namespace::own),
            user: request.user,
            own_trees: OwnTrees::of(request),
            image_at: request.image == ImageMode::MountAt,
            restrictions: None,
            warnings: std::mem::take(&mut member.warnings),
            member: Some(member),
            had_volumes: !volumes.is_empty(),
            volumes,
            in_use,
            namespaces: None,
            remove_with_last,
            is_own,
            is_limited_by_project,
        }
    }

    #[must_use]
    pub(crate) fn with_restrictions(mut self, restrictions: Option<Restrictions>) -> Self {
        self.restrictions = restrictions;
        self
    }

    /// The error of entering a view that was released, or entering it as init twice.
    fn out_of_turn(&self) -> Result<(), Error> {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        Err(error).context("enter the view of", &self.id)
    }
}

impl View for OverlayView {
    fn enter_init(&self) -> Result<(), Error> {
        let (None, Some(member)) = (&self.namespaces, &self.member) else {
            return self.out_of_turn();
        };
        let restrictions = self.restrictions.as_ref();
        enter_copy(
            &member.namespace,
            self.inside,
            self.own_trees,
            &self.volumes,
            restrictions,
        )?;
        if let Some(restrictions) = restrictions {
            restrictions.set_propagation(&self.volumes)?;
        }
        in_view::make_and_change_dir(&self.cwd, self.user)
    }

    fn enter_exec(&self) -> Result<(), Error> {
        let Some(namespaces) = &self.namespaces else {
            return self.out_of_turn();
        };
        namespaces.enter().context("enter the view of", &self.id)?;
        in_view::change_dir_or_root(&self.cwd)
    }

    fn keep_namespace(&mut self, pid: u32) -> Result<(), Error> {
        self.namespaces = Some(match self.base.privilege {
            Privilege::Root => Namespaces::of(pid)?,
            Privilege::User => Namespaces::with_user(pid)?,
        });
        // The container's namespace has the volumes now; copies would keep devices busy.
        self.volumes.clear();
        Ok(())
    }

    fn environment(&self) -> Vec<String> {
        let image = self
            .image_at
            .then(|| format!("REAPER_IMAGE_ROOT={IMAGE_ROOT}"));
        image.into_iter().collect()
    }

    fn is_limited_by_project(&self) -> bool {
        self.is_limited_by_project
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn undo(&mut self) -> Result<(), Error> {
        self.remove_with_last |= self.is_own;
        self.release()
    }

    fn release(&mut self) -> Result<(), Error> {
        // First the mounts, then what they were mounted on.
        self.namespaces = None;
        self.volumes.clear();
        self.in_use.clear();
        if self.had_volumes {
            MountPointUser::in_scope(&self.base, &self.scope, &self.id).release()?;
            self.had_volumes = false;
        }
        // Nothing else of the member is left when the scope may be removed.
        let Some(Member { membership, .. }) = self.member.take() else {
            return Ok(());
        };
        membership.end(&self.base, &self.scope, self.remove_with_last)
    }
}

/// Moves the calling process into its own copy of the scope's view, with `volumes`. Without root it
/// is called `inside` there.
fn enter_copy(
    scope: &ScopeNamespace,
    inside: Ids,
    own_trees: OwnTrees,
    volumes: &[Volume],
    restrictions: Option<&Restrictions>,
) -> Result<(), Error> {
    scope.join()?;
    match scope {
        ScopeNamespace::Pinned {
            view_path: Some(view),
            locked,
            ..
        } => return exchange_host_root(view, *locked, own_trees, volumes, restrictions),
        // A copy of mounts of another user namespace has slaves from the start.
        ScopeNamespace::Pinned { locked: true, .. } => {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts of", "/")?;
        }
        ScopeNamespace::Pinned { .. } => unshare_mounts()?,
        // In a new user namespace the mounts of the scope are locked, whatever uid the process has
        // there.
        ScopeNamespace::Held(_) => unshare_as(inside)?,
    }
    own_trees.renew()?;
    let mount = || volumes.iter().try_for_each(|volume| volume.mount(None));
    match restrictions {
        Some(restrictions) => restrictions.around(Interface::with_trees(), volumes, mount)?,
        None => mount()?,
    }
    // Since Linux 6.8 a mount's place in mountinfo is that of its number, and volumes were opened before
    // the copy was made: they would stand before the guards that they are mounted on, and df(1), which
    // takes the last one of a place for the one on top, would show the guards' names. In a copy the mounts
    // have numbers in the order of the tree. It would not keep a volume unbindable.
    if volumes.is_empty() || volumes.iter().any(Volume::is_unbindable) {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare again the mounts of", "/")
}

/// Makes `view` the root of a copy of a namespace that has the host's root, and mounts `volumes`,
/// which are bound from that.
fn exchange_host_root(
    view: &Path,
    locked: bool,
    own_trees: OwnTrees,
    volumes: &[Volume],
    restrictions: Option<&Restrictions>,
) -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts of", "/")?;
    // The host's are slaves already.
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(view, downstream).context("make a slave of", view)?;
    make_parents_unbindable(view)?;
    let found = mount::find(volumes)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let new = openat(CWD, view, flags, Mode::empty()).context("open", view)?;
    let old = pivot::exchange(&new, view)?;
    own_trees.renew()?;
    let mount = || {
        for (volume, found) in volumes.iter().zip(&found) {
            volume.mount(found.as_ref())?;
        }
        drop(found);
        old.detach_old()
    };
    match restrictions {
        Some(restrictions) => restrictions.around(Interface::Classic, volumes, mount)?,
        None => mount()?,
    }
    // What is locked does not go when the host unmounts it.
    if locked && !volumes.iter().any(Volume::receives_propagation) {
        lock()?;
    }
    Ok(())
}

/// Makes the mounts of the base that `view` lies in unbindable again, which a copy of a namespace is
/// not: a volume shall not show the overlays.
fn make_parents_unbindable(view: &Path) -> Result<(), Error> {
    for dir in view.ancestors().skip(1).take(VIEW_DEPTH) {
        match mount_change(dir, MountPropagationFlags::UNBINDABLE) {
            // Nothing is mounted there.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).context("make unbindable", dir),
        }
    }
    Ok(())
}
