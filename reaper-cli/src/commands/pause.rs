//! `pause` and `resume`.

use reaper_spec::ContainerId;

use crate::{error::Result, host::ContainerEngine, outcome::ExitAction};

pub(crate) async fn pause(containers: &ContainerEngine, id: &ContainerId) -> Result<ExitAction> {
    containers.state(id).await?;
    containers.pause(id).await?;
    Ok(ExitAction::DONE)
}

pub(crate) async fn resume(containers: &ContainerEngine, id: &ContainerId) -> Result<ExitAction> {
    containers.state(id).await?;
    containers.resume(id).await?;
    Ok(ExitAction::DONE)
}
