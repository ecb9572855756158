//! `prune`.

use std::{io::Write, time::Duration};

use reaper_exec::engine::Error as EngineError;
use reaper_overlay::{Error as OverlayError, Overlays, Scope};
use reaper_state::Error as StoreError;

use super::{context::CommandContext, delete::delete, output::print, selection::stopped};
use crate::{args::PruneArgs, error::Result, outcome::ExitAction};

/// Prints what it removes, a line each.
pub(crate) async fn run(
    call: &CommandContext,
    args: &PruneArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    for id in stopped(&call.containers).await? {
        if !args.dry_run {
            match delete(&call.containers, &id, false).await {
                Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
                deleted => deleted?,
            }
        }
        print(out, format_args!("container {id}\n"))?;
    }
    if let Some(age) = args.overlays {
        let overlays = Overlays::new(&call.config.overlay);
        for scope in unused(&overlays, age)? {
            if !args.dry_run {
                match overlays.remove(&scope) {
                    // It has a member again, or another program removed it first.
                    Err(OverlayError::ScopeBusy { .. } | OverlayError::ScopeNotFound { .. }) => {
                        continue;
                    }
                    removed => removed?,
                }
            }
            print(out, format_args!("overlay {scope}\n"))?;
        }
    }
    Ok(ExitAction::DONE)
}

fn unused(overlays: &Overlays, age: Duration) -> Result<Vec<Scope>> {
    let unused = overlays.list()?.into_iter().filter(|info| {
        info.members.is_empty() && info.last_used.elapsed().unwrap_or_default() >= age
    });
    Ok(unused.map(|info| info.scope).collect())
}
