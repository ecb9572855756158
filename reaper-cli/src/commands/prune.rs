//! `prune`.

use std::{io::Write, time::Duration};

use reaper_exec::engine::Error as EngineError;
use reaper_overlay::{Error as OverlayError, Overlays, Recovery, Scope};
use reaper_state::Error as StoreError;

use super::{
    context::CommandContext,
    delete::delete,
    output::{print, remark, size},
    selection::{incomplete, known},
};
use crate::{args::PruneArgs, error::Result, outcome::ExitAction, text::printable};

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
                    remark(&printable(&format!("container {id}: {error}")));
                    continue;
                }
            }
        }
        print(out, format_args!("container {id}\n"))?;
    }
    let overlays = Overlays::new(&call.config.overlay);
    let left = overlays.left_over()?;
    if left.files > 0 {
        if !args.dry_run {
            overlays.clear()?;
        }
        let size = size(left.bytes);
        print(out, format_args!("{size} of removed overlays\n"))?;
    }
    if !args.dry_run
        && let Some(recovery) = overlays.recover()?
    {
        let done = match recovery {
            Recovery::Cleared => "removed the rest of",
            Recovery::Finished => "finished",
            _ => "undid",
        };
        print(out, format_args!("{done} an interrupted commit\n"))?;
    }
    if let Some(age) = args.overlays {
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
    incomplete("containers", "removed", failed, stopped.len())?;
    known.complete()?;
    Ok(ExitAction::DONE)
}

fn unused(overlays: &Overlays, age: Duration) -> Result<Vec<Scope>> {
    let mut unused = Vec::new();
    for scope in overlays.scopes()? {
        match overlays.inspect(&scope) {
            Ok(Some(info)) => {
                let is_old = info.last_used.elapsed().unwrap_or_default() >= age;
                if info.members.is_empty() && is_old {
                    unused.push(scope);
                }
            }
            Ok(None) => {}
            // One that cannot be read is kept, and does not keep the others.
            Err(error) => remark(&printable(&format!("overlay {scope}: {error}"))),
        }
    }
    Ok(unused)
}
