//! `prune`.

use std::{io::Write, time::Duration};

use reaper_exec::engine::Error as EngineError;
use reaper_overlay::{Error as OverlayError, Overlays, Scope};
use reaper_state::Error as StoreError;

use super::{
    context::CommandContext,
    delete::delete,
    output::print,
    selection::{incomplete, known},
};
use crate::{args::PruneArgs, error::Result, outcome::ExitAction};

/// Prints what it removes, a line each.
pub(crate) async fn run(
    call: &CommandContext,
    args: &PruneArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    // One that cannot be read is not touched, and one that cannot be removed keeps no other.
    let known = known(&call.containers).await?;
    let stopped = known.stopped();
    let mut failed = 0;
    for id in &stopped {
        if !args.dry_run {
            match delete(&call.containers, id, false).await {
                Ok(()) => {}
                Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
                Err(error) => {
                    failed += 1;
                    tracing::warn!("container {id}: {error}");
                    continue;
                }
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
    incomplete("removed", failed, stopped.len())?;
    known.complete()?;
    Ok(ExitAction::DONE)
}

fn unused(overlays: &Overlays, age: Duration) -> Result<Vec<Scope>> {
    let unused = overlays.list()?.into_iter().filter(|info| {
        info.members.is_empty() && info.last_used.elapsed().unwrap_or_default() >= age
    });
    Ok(unused.map(|info| info.scope).collect())
}
