//! `start`.

use reaper_exec::engine::Error as EngineError;
use reaper_state::Error as StoreError;

use super::{context::CommandContext, create::make};
use crate::{
    args::StartArgs,
    container::{self, StdioSource},
    error::{Error, Result},
    outcome::ExitAction,
    streams,
};

/// Opens the gate. The program of a container that a person created gets the streams of this
/// call, so that they can be redirected; an engine's keeps those of `create`.
pub(crate) async fn run(call: CommandContext, args: StartArgs) -> Result<ExitAction> {
    let CommandContext {
        containers, config, ..
    } = call;
    let id = args.id;
    let record = match (containers.state(&id).await, args.bundle) {
        (Err(EngineError::Store(StoreError::NotFound { .. })), Some(bundle)) => {
            let mut new = container::of_bundle(&config, id.clone(), &bundle)?;
            if new.process.terminal {
                return Err(Error::NoTerminal);
            }
            StdioSource {
                stdio: streams::inherited()?,
                ..StdioSource::default()
            }
            .apply(&mut new);
            make(&containers, new, &config.policy.container_limits()).await?
        }
        (record, _) => record?,
    };
    if container::streams_deferred(&record) {
        let own = streams::duplicated()?;
        let executor = containers.executor();
        containers
            .start_with(&id, executor.start_with_streams(&id, own))
            .await?;
    } else {
        containers.start(&id).await?;
    }
    Ok(ExitAction::DONE)
}
