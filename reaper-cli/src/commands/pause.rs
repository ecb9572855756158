//! `pause` and `resume`.

use reaper_spec::ContainerId;

use crate::{error::Result, host::Containers, outcome::Outcome};

pub(crate) async fn pause(containers: &Containers, id: &ContainerId) -> Result<Outcome> {
    containers.state(id).await?;
    containers.pause(id).await?;
    Ok(Outcome::DONE)
}

pub(crate) async fn resume(containers: &Containers, id: &ContainerId) -> Result<Outcome> {
    containers.state(id).await?;
    containers.resume(id).await?;
    Ok(Outcome::DONE)
}
