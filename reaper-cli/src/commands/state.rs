//! `state`.

use std::io::Write;

use reaper_spec::ContainerId;

use super::{context::CommandContext, migrate, output::print_json};
use crate::{
    args::{StateArgs, StateCommand},
    error::{Error, Result},
    oci::State,
    outcome::ExitAction,
};

/// What a container is called whose name is that of the subcommand.
const MIGRATE: &str = "migrate";

pub(crate) async fn run(
    call: &CommandContext,
    args: StateArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let id = match (args.command, args.id) {
        (Some(StateCommand::Migrate(args)), _) => match args.to {
            Some(to) => return migrate::run(call, &args, to, out),
            // Engines give containers any name.
            None => ContainerId::new(MIGRATE),
        },
        (None, Some(id)) => Ok(id),
        (None, None) => ContainerId::new(""),
    };
    let id = id.map_err(|error| Error::Option {
        option: "ID",
        problem: error.to_string(),
    })?;
    let record = call.containers.state(&id).await?;
    print_json(out, &State::of(&record))?;
    Ok(ExitAction::DONE)
}
