//! `completions`.

use std::io::Write;

use clap::CommandFactory;

use crate::{
    args::{Cli, CompletionsArgs},
    error::{Error, Result},
    outcome::ExitAction,
};

pub(crate) fn run(args: &CompletionsArgs, out: &mut dyn Write) -> Result<ExitAction> {
    // It panics where it cannot write.
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    out.write_all(&script)
        .and_then(|()| out.flush())
        .map_err(Error::io("write to stdout"))?;
    Ok(ExitAction::DONE)
}
