//! `kill`.

use std::io::{self, Write};

use reaper_exec::{Error as ExecutorError, Signal, engine::Error as EngineError};
use reaper_spec::Status;

use crate::{args::KillArgs, error::Result, host::ContainerEngine, outcome::ExitAction};

/// Signals a container. One that has ended already is what was wanted: success, with a note.
pub(crate) async fn run(containers: &ContainerEngine, args: &KillArgs) -> Result<ExitAction> {
    let signal = args.positional.or(args.signal).unwrap_or(Signal::TERM);
    match containers.kill(&args.id, signal, args.all).await {
        Ok(()) => Ok(ExitAction::DONE),
        Err(EngineError::Executor(ExecutorError::Ended(_) | ExecutorError::NotFound(_)))
            if containers.state(&args.id).await?.status == Status::Stopped =>
        {
            let id = &args.id;
            // The kill has succeeded: failing to print this note must not make the call fail.
            let _ = writeln!(
                io::stderr(),
                "reaper-runtime: container {id} has already stopped"
            );
            Ok(ExitAction::DONE)
        }
        Err(error) => Err(error.into()),
    }
}
