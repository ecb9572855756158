//! Doing something with several scopes.

use reaper_overlay::{Error as OverlayError, Scope};

use crate::{
    commands::{output::remark, selection::incomplete},
    error::Result,
    text::printable,
};

/// Calls `act` for each of the scopes, which are to be `done` so. One for which that fails is named
/// and does not keep it from the others; so is one that does not exist, if it was `asked_for`.
pub(super) fn each(
    scopes: &[Scope],
    done: &'static str,
    asked_for: bool,
    mut act: impl FnMut(&Scope) -> Result<(), OverlayError>,
) -> Result<()> {
    let mut failed = 0;
    for scope in scopes {
        match act(scope) {
            Ok(()) => {}
            // It was removed meanwhile.
            Err(OverlayError::ScopeNotFound { .. }) if !asked_for => {}
            Err(error) => {
                failed += 1;
                remark(&printable(&format!("overlay {scope}: {error}")));
            }
        }
    }
    incomplete("overlays", done, failed, scopes.len())
}
