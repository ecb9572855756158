//! `man`.

use clap::CommandFactory;

use crate::{
    args::{Cli, ManArgs},
    error::{Error, Result},
    outcome::ExitAction,
};

/// Writes `reaper-runtime.1` and a `reaper-runtime-COMMAND.1` for each command.
pub(crate) fn run(args: &ManArgs) -> Result<ExitAction> {
    let failed = Error::io(format!("write to {}", args.folder.display()));
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(failed)?;
    Ok(ExitAction::DONE)
}
