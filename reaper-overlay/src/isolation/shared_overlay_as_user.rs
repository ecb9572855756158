//! Overlays without root, in a user namespace.

use super::{overlay_view_as_user::UserView, place_volumes::place};
use crate::{
    contract::{Error, Scope, View, ViewRequest},
    linux::{files::exists, namespace},
    scope::{
        join_as_user::{Member, Wanted},
        mount_points::{self, Owner},
    },
    store::{base::Base, paths::ScopePaths},
    volume::open_as_user,
};

/// A view as [`SharedOverlay`](crate::SharedOverlay) makes it without root.
pub(crate) fn prepare(
    request: &ViewRequest,
    wanted: &Wanted<'_>,
    warnings: impl IntoIterator<Item = String>,
    remove_with_last: bool,
) -> Result<Box<dyn View>, Error> {
    let scope = Scope::of(request)?;
    let base = Base::prepare(&request.overlay)?;
    let inside = request.user.unwrap_or_else(namespace::own);
    let mut volumes = open_as_user::open(request, inside)?;
    let is_new = !exists(&ScopePaths::new(&base.path, &scope).data)?;
    let mut member = Member::join(&base, &scope, &request.unique_id(), wanted)?;
    let enter = || member.namespaces.enter();
    let owner = Owner::Scope(&scope);
    let hosts = wanted.host_paths;
    if let Err(error) = place(&mut volumes, request, &base, owner, Some(&enter), hosts) {
        // The first error says what went wrong; what cannot be removed now, `collect` will.
        let _ = member
            .membership
            .end(&base, &scope, is_new && scope.is_container());
        return Err(error);
    }
    member.warnings.extend(warnings);
    if request.overlay.size.is_some() {
        // A tmpfs in the user namespace would keep one, and be gone with the last member: with all
        // that people want to look at then.
        member.warnings.push(format!(
            "overlay: size is not kept without root; the filesystem of {} is the limit",
            base.path.display()
        ));
    }
    let view = UserView::new(base, scope, request, member, volumes, remove_with_last);
    Ok(Box::new(view))
}

/// Removes what a member left whose monitor was killed.
pub(crate) fn collect(request: &ViewRequest) -> Result<(), Error> {
    let Some(base) = Base::open(&request.overlay)? else {
        return Ok(());
    };
    let scope = Scope::of(request)?;
    let id = request.unique_id();
    mount_points::release(&base, Owner::Scope(&scope), &id)?;
    let paths = ScopePaths::new(&base.path, &scope);
    crate::linux::files::remove_file(&paths.members().join(id))
}
