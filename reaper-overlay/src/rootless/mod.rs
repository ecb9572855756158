//! Overlays without root, in a user namespace.

mod assemble;
mod identity;
mod layer;
mod member;
mod obstacle;
mod place;
mod plan;
mod view;

use reaper_spec::{ImageMode, MaskConfig};

pub(crate) use self::member::Wanted;
use self::{member::Member, view::UserView};
pub use self::{obstacle::Obstacle, place::user_directory};
use crate::{
    Error, View, ViewRequest,
    base::Base,
    scope::{Scope, ScopePaths},
    volumes::is_wanted,
};

/// Whether the calling process has to do without root.
pub(crate) fn is_needed() -> bool {
    !rustix::process::geteuid().is_root()
}

/// A view as [`SharedOverlay`](crate::SharedOverlay) makes it without root.
pub(crate) fn prepare(
    request: &ViewRequest,
    wanted: &Wanted<'_>,
    warnings: impl IntoIterator<Item = String>,
    remove_with_last: bool,
) -> Result<Box<dyn View>, Error> {
    if let Some(mount) = request.mounts.iter().find(|m| is_wanted(m, request.dns)) {
        return Err(Error::NeedsRoot {
            what: format!("the volume on {}", mount.destination.display()),
        });
    }
    if request.image != ImageMode::Ignore {
        return Err(Error::NeedsRoot {
            what: "the use of an image".to_owned(),
        });
    }
    let scope = Scope::of(request)?;
    let base = Base::prepare(&request.overlay)?;
    let mut member = Member::join(&base, &scope, &request.unique_id(), wanted)?;
    member.warnings.extend(warnings);
    if request.overlay.masks != MaskConfig::default() {
        let text = "overlay: masks are not applied without root; what the user can read is shown";
        member.warnings.push(text.to_owned());
    }
    if request.overlay.size.is_some() {
        member.warnings.push(format!(
            "overlay: size is not kept without root; the filesystem of {} is the limit",
            base.path.display()
        ));
    }
    let view = UserView::new(base, scope, request, member, remove_with_last);
    Ok(Box::new(view))
}

/// Removes the mark that a member left whose monitor was killed.
pub(crate) fn collect(request: &ViewRequest) -> Result<(), Error> {
    let Some(base) = Base::open(&request.overlay)? else {
        return Ok(());
    };
    let paths = ScopePaths::new(&base.path, &Scope::of(request)?);
    crate::layers::remove_file(&paths.members().join(request.unique_id()))
}
