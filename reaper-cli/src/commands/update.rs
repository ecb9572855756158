//! `update`.

use std::{fs, io::Read as _};

use reaper_exec::Executor;
use reaper_spec::Resources;

use super::{context::CommandContext, names::find};
use crate::{
    args::UpdateArgs,
    error::{Error, Result},
    outcome::ExitAction,
};

pub(crate) async fn run(mut call: CommandContext, args: UpdateArgs) -> Result<ExitAction> {
    let id = &find(&mut call, &args.id).await?;
    let containers = &call.containers;
    containers.state(id).await?;
    let mut resources = match &args.resources {
        Some(path) => read(path)?,
        None => Resources::default(),
    };
    args.limits.apply(&mut resources);
    containers.executor().update(id, &resources).await?;
    Ok(ExitAction::DONE)
}

fn read(path: &std::path::Path) -> Result<Resources> {
    let read = || {
        if path.as_os_str() != "-" {
            return fs::read(path);
        }
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text)?;
        Ok(text)
    };
    let json = read().map_err(Error::io(format!("read {}", path.display())))?;
    Ok(Resources::parse(&json)?)
}
