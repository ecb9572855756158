//! `wait`.

use std::io::Write;

use super::{context::CommandContext, names::find, output::print};
use crate::{args::ContainerName, error::Result, outcome::ExitAction};

pub(crate) async fn run(
    mut call: CommandContext,
    name: &ContainerName,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let id = &find(&mut call, name).await?;
    let containers = &call.containers;
    let record = containers.state(id).await?;
    let exit = match record.exit {
        Some(exit) => exit,
        None => containers.wait(id).await?,
    };
    print(out, format_args!("{}\n", exit.status.code()))?;
    Ok(ExitAction::DONE)
}
