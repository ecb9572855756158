//! `delete`.

use reaper_exec::engine::Error as EngineError;
use reaper_state::Error as StoreError;

use crate::{args::DeleteArgs, error::Result, host::Containers, outcome::Outcome};

pub(crate) async fn run(containers: &Containers, args: &DeleteArgs) -> Result<Outcome> {
    match containers.delete(&args.id, args.force).await {
        Ok(_) => Ok(Outcome::DONE),
        // Nothing is left to be forced.
        Err(EngineError::Store(StoreError::NotFound { .. })) if args.force => Ok(Outcome::DONE),
        Err(error) => Err(error.into()),
    }
}
