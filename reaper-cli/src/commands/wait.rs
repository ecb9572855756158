//! `wait`.

use std::io::Write;

use reaper_spec::ContainerId;

use super::output::print;
use crate::{error::Result, host::ContainerEngine, outcome::ExitAction};

pub(crate) async fn run(
    containers: &ContainerEngine,
    id: &ContainerId,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let record = containers.state(id).await?;
    let exit = match record.exit {
        Some(exit) => exit,
        None => containers.wait(id).await?,
    };
    print(out, format_args!("{}\n", exit.status.code()))?;
    Ok(ExitAction::DONE)
}
