//! `state`.

use std::io::Write;

use super::{context::CommandContext, migrate, names::find, output::print_json};
use crate::{
    args::{StateArgs, StateCommand},
    error::{Error, Result},
    oci::State,
    outcome::ExitAction,
};

/// What a container is called whose name is that of the subcommand.
const MIGRATE: &str = "migrate";

pub(crate) async fn run(
    mut call: CommandContext,
    args: StateArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let name = match (args.command, args.id) {
        (Some(StateCommand::Migrate(args)), _) => match args.to {
            Some(to) => return migrate::run(&call, &args, to, out),
            // Engines give containers any name.
            None => MIGRATE.parse(),
        },
        (None, Some(name)) => Ok(name),
        (None, None) => "".parse(),
    };
    let name = name.map_err(|problem| Error::Option {
        option: "ID",
        problem,
    })?;
    let id = find(&mut call, &name).await?;
    let record = call.containers.state(&id).await?;
    print_json(out, &State::of(&record))?;
    Ok(ExitAction::DONE)
}
