//! `wait`.

use std::io::Write;

use reaper_spec::ContainerId;

use super::output::print;
use crate::{error::Result, host::Containers, outcome::Outcome};

pub(crate) async fn run(
    containers: &Containers,
    id: &ContainerId,
    out: &mut dyn Write,
) -> Result<Outcome> {
    let record = containers.state(id).await?;
    let exit = match record.exit {
        Some(exit) => exit,
        None => containers.wait(id).await?,
    };
    print(out, format_args!("{}\n", exit.status.code()))?;
    Ok(Outcome::DONE)
}
