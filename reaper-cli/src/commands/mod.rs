//! The commands, one a file.

mod capabilities;
mod completions;
mod config;
mod containerd;
mod context;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod finding;
mod kill;
mod list;
mod logs;
mod man;
mod metrics;
mod migrate;
mod names;
mod node;
mod output;
mod overlay;
mod pause;
mod prune;
mod ps;
mod roots;
mod run;
mod selection;
mod spec;
mod start;
mod state;
mod stats;
mod table;
mod update;
mod version;
mod wait;

use std::{io::Write, sync::Arc};

pub(crate) use self::{
    config::run as look_at_configuration,
    context::{CommandContext, StandIn},
    doctor::run_if_asked as become_trial_if_asked,
    output::print,
};
use crate::{args::Command, detached::HelperRole, error::Result, outcome::ExitAction, suggest};

/// Does what `command` says, and prints the answer to `out`.
pub(crate) async fn run(
    call: CommandContext,
    command: Command,
    role: &HelperRole,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let store = Arc::clone(call.containers.store());
    dispatch(call, command, role, out)
        .await
        .map_err(|error| suggest::explain(error, &*store))
}

async fn dispatch(
    call: CommandContext,
    command: Command,
    role: &HelperRole,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    match command {
        Command::Create(args) => create::run(call, args).await,
        Command::Start(args) => start::run(call, args).await,
        Command::State(args) => state::run(call, args, out).await,
        Command::Kill(args) => kill::run(call, &args).await,
        Command::Delete(args) => delete::run(call, &args).await,
        Command::Run(args) => run::run(call, args, out).await,
        Command::Exec(args) => exec::run(call, args, role).await,
        Command::List(args) => list::run(&call, &args, out).await,
        Command::Ps(args) => ps::run(call, &args, out).await,
        Command::Pause(args) => pause::pause(call, &args.id).await,
        Command::Resume(args) => pause::resume(call, &args.id).await,
        Command::Update(args) => update::run(call, args).await,
        Command::Wait(args) => wait::run(call, &args.id, out).await,
        Command::Logs(args) => logs::run(call, &args, out).await,
        Command::Events(args) => events::run(call, &args, out).await,
        Command::Stats(args) => stats::run(call, &args, out).await,
        Command::Metrics(args) => metrics::run(&call, &args, out).await,
        Command::Overlay(args) => overlay::run(&call, &args, out),
        Command::Features => features::run(out),
        Command::Spec(args) => spec::run(&args),
        Command::Prune(args) => prune::run(&call, &args, out).await,
        Command::Config(args) => config::run(call.config_file.as_deref(), &args, out),
        Command::Doctor(args) => doctor::run(&call, &args, out).await,
        Command::Node(args) => node::run(&call, &args, out),
        Command::Completions(args) => completions::run(&args, out),
        Command::Man(args) => man::run(&args),
        Command::Version => version::run(out),
    }
}

impl Command {
    /// The number of descriptors that the caller hands over.
    pub(crate) fn preserve_fds(&self) -> u32 {
        match self {
            Self::Create(args) => args.bundle.preserve_fds,
            Self::Run(args) => args.bundle.preserve_fds,
            Self::Exec(args) => args.preserve_fds,
            _ => 0,
        }
    }

    /// The options of runc that were given and have no meaning here.
    pub(crate) fn without_meaning(&self) -> Vec<&'static str> {
        match self {
            Self::Create(args) => args.bundle.without_meaning().collect(),
            Self::Run(args) => args.bundle.without_meaning().collect(),
            Self::Exec(args) => args.without_meaning().collect(),
            Self::Spec(args) if args.rootless => vec!["--rootless"],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
