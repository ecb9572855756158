//! `pause` and `resume`.

use super::{context::CommandContext, names::find};
use crate::{args::ContainerName, error::Result, outcome::ExitAction};

pub(crate) async fn pause(mut call: CommandContext, name: &ContainerName) -> Result<ExitAction> {
    let id = &find(&mut call, name).await?;
    let containers = &call.containers;
    containers.state(id).await?;
    containers.pause(id).await?;
    Ok(ExitAction::DONE)
}

pub(crate) async fn resume(mut call: CommandContext, name: &ContainerName) -> Result<ExitAction> {
    let id = &find(&mut call, name).await?;
    let containers = &call.containers;
    containers.state(id).await?;
    containers.resume(id).await?;
    Ok(ExitAction::DONE)
}
