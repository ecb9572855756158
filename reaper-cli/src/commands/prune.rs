//! `prune`.

use std::{io::Write, time::Duration};

use reaper_exec::engine::Error as EngineError;
use reaper_overlay::{Error as OverlayError, Overlays, Scope};
use reaper_spec::{ContainerId, Status};
use reaper_state::Error as StoreError;

use super::{Call, delete::delete, print};
use crate::{args::PruneArgs, error::Result, host::Containers, outcome::Outcome};

/// Prints what it removes, a line each.
pub(crate) async fn run(call: &Call, args: &PruneArgs, out: &mut dyn Write) -> Result<Outcome> {
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
                    // Somebody came, or was quicker.
                    Err(OverlayError::ScopeBusy { .. } | OverlayError::ScopeNotFound { .. }) => {
                        continue;
                    }
                    removed => removed?,
                }
            }
            print(out, format_args!("overlay {scope}\n"))?;
        }
    }
    Ok(Outcome::DONE)
}

/// The containers that have stopped. One that cannot be read is not touched.
pub(super) async fn stopped(containers: &Containers) -> Result<Vec<ContainerId>> {
    let mut found = Vec::new();
    for id in containers.list().await? {
        match containers.state(&id).await {
            Ok(record) if record.status == Status::Stopped => found.push(id),
            Ok(_) | Err(EngineError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => tracing::warn!("container {id}: {error}"),
        }
    }
    Ok(found)
}

fn unused(overlays: &Overlays, age: Duration) -> Result<Vec<Scope>> {
    let unused = overlays.list()?.into_iter().filter(|info| {
        info.members.is_empty() && info.last_used.elapsed().unwrap_or_default() >= age
    });
    Ok(unused.map(|info| info.scope).collect())
}
