//! `delete`.

use reaper_exec::engine::Error as EngineError;
use reaper_spec::ContainerId;
use reaper_state::Error as StoreError;

use super::{context::CommandContext, names::find};
use crate::{
    args::DeleteArgs,
    error::{Error, Result},
    host::ContainerEngine,
    logs,
    outcome::ExitAction,
};

pub(crate) async fn run(mut call: CommandContext, args: &DeleteArgs) -> Result<ExitAction> {
    let id = match find(&mut call, &args.id).await {
        Err(Error::NoPod { .. }) if args.force => return Ok(ExitAction::DONE),
        id => id?,
    };
    match delete(&call.containers, &id, args.force).await {
        Ok(()) => Ok(ExitAction::DONE),
        // Nothing is left to be forced.
        Err(EngineError::Store(StoreError::NotFound { .. })) if args.force => Ok(ExitAction::DONE),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a container, and its log with it.
pub(super) async fn delete(
    containers: &ContainerEngine,
    id: &ContainerId,
    force: bool,
) -> Result<(), EngineError> {
    // What cannot be read can be deleted all the same.
    let stored = containers.store().get(id);
    containers.delete(id, force).await?;
    if let Ok(stored) = stored {
        logs::remove(&stored.record);
    }
    Ok(())
}
