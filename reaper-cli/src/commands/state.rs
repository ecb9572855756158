//! `state`.

use std::io::Write;

use reaper_spec::ContainerId;

use super::print_json;
use crate::{error::Result, host::Containers, oci::State, outcome::Outcome};

pub(crate) async fn run(
    containers: &Containers,
    id: &ContainerId,
    out: &mut dyn Write,
) -> Result<Outcome> {
    let record = containers.state(id).await?;
    print_json(out, &State::of(&record))?;
    Ok(Outcome::DONE)
}
