//! `overlay`: what was written over this machine.

mod changes;
mod list;
mod progress;

use std::io::Write;

use reaper_overlay::Overlays;

pub(crate) use self::list::size;
use super::Call;
use crate::{
    args::{OverlayArgs, OverlayCommand},
    error::Result,
    outcome::Outcome,
};

pub(crate) fn run(call: &Call, args: &OverlayArgs, out: &mut dyn Write) -> Result<Outcome> {
    let overlays = Overlays::new(&call.config.overlay);
    match &args.command {
        OverlayCommand::Ls { output } => list::list(&overlays, *output, out)?,
        OverlayCommand::Du { scopes, output } => list::usage(&overlays, scopes, *output, out)?,
        OverlayCommand::Diff(args) => changes::diff(&overlays, args, out)?,
        OverlayCommand::Export(args) => changes::export(&overlays, args, out)?,
        OverlayCommand::Commit(args) => changes::commit(&overlays, args, out)?,
        OverlayCommand::Reset { scope } => overlays.reset(scope)?,
        OverlayCommand::Rm { scopes } => {
            for scope in scopes {
                overlays.remove(scope)?;
            }
        }
    }
    Ok(Outcome::DONE)
}
