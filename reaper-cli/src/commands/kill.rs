//! `kill`.

use std::io::{self, Write};

use reaper_exec::{Error as ExecutorError, Signal, engine::Error as EngineError};
use reaper_spec::Status;

use super::{context::CommandContext, names::find};
use crate::{args::KillArgs, error::Result, outcome::ExitAction};

/// Signals a container. One that has ended already is what was wanted: success, with a note.
pub(crate) async fn run(mut call: CommandContext, args: &KillArgs) -> Result<ExitAction> {
    let id = &find(&mut call, &args.id).await?;
    let containers = &call.containers;
    let signal = args.positional.or(args.signal).unwrap_or(Signal::TERM);
    match containers.kill(id, signal, args.all).await {
        Ok(()) => Ok(ExitAction::DONE),
        Err(EngineError::Executor(ExecutorError::Ended(_) | ExecutorError::NotFound(_)))
            if containers.state(id).await?.status == Status::Stopped =>
        {
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
