//! `node`: installs Reaper on this node, and takes it out again.
//!
//! What is to be done is a plan, which is made from what is there without calling the system; what it is made
//! from, and doing it, are apart.

mod disk;
mod facts;
mod handlers;
mod install;
mod layout;
mod plan;
mod record;
mod service;
mod status;
mod step;
mod texts;
mod uninstall;

use std::io::Write;

use super::context::CommandContext;
use crate::{
    args::{NodeArgs, NodeCommand},
    error::Result,
    outcome::ExitAction,
};

pub(crate) fn run(
    call: &CommandContext,
    args: &NodeArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    match &args.command {
        NodeCommand::Install(args) => install::run(args, false, out)?,
        NodeCommand::Upgrade(args) => install::run(args, true, out)?,
        NodeCommand::Uninstall(args) => uninstall::run(call, args, out)?,
        NodeCommand::Status(args) => return status::run(call, args, out),
    }
    Ok(ExitAction::DONE)
}

#[cfg(test)]
mod tests;
