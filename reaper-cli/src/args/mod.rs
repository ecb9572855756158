//! The command line, as data.

mod config;
mod container;
mod exec;
mod global;
mod housekeeping;
mod inspect;
mod metrics;
mod name;
mod node;
mod overlay;
mod process;
mod run;
mod state;
mod update;

use clap::{Parser, Subcommand};

pub(crate) use self::{
    config::{ConfigArgs, ConfigCommand},
    container::{CreateArgs, DeleteArgs, KillArgs, SpecArgs, StartArgs},
    exec::ExecArgs,
    global::{GlobalArgs, LogFormat},
    housekeeping::{CompletionsArgs, DoctorArgs, ManArgs, PruneArgs},
    inspect::{EventsArgs, Format, IdArgs, ListArgs, LogsArgs, PsArgs, StatsArgs},
    metrics::{Listen, MetricsArgs},
    name::{ContainerName, NameInPod},
    node::{
        NodeArgs, NodeChange, NodeCommand, NodeInstallArgs, NodeStatusArgs, NodeTarget,
        NodeUninstallArgs,
    },
    overlay::{CommitArgs, DiffArgs, ExportArgs, Output, OverlayArgs, OverlayCommand},
    process::{ProcessArgs, UserArg},
    run::RunArgs,
    state::{MigrateArgs, StateArgs, StateCommand},
    update::UpdateArgs,
};

/// Runs containers as processes of this machine: an OCI runtime for engines, and a tool for
/// people.
#[derive(Debug, Parser)]
#[command(
    name = "reaper-runtime",
    arg_required_else_help = true,
    subcommand_required = false,
    disable_version_flag = true,
    infer_long_args = false,
    after_help = "\
Examples:
  reaper-runtime run -- make install         run a command, with its output and exit code
  reaper-runtime run -t --name try -- bash   a shell, in a terminal of its own
  reaper-runtime create --bundle DIR web     make a container from an OCI bundle …
  reaper-runtime start web                   … run it …
  reaper-runtime kill web TERM               … end it …
  reaper-runtime delete web                  … and forget it
  reaper-runtime list                        what there is

`reaper-runtime COMMAND --help` has the options and examples of a command."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    /// Print the version
    #[arg(short, long)]
    pub(crate) version: bool,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(CreateArgs),
    Start(StartArgs),
    State(StateArgs),
    Kill(KillArgs),
    Delete(DeleteArgs),
    Run(RunArgs),
    Exec(ExecArgs),
    List(ListArgs),
    Ps(PsArgs),
    /// Freeze the processes of a container
    #[command(after_help = "\
Examples:
  reaper-runtime pause web
  reaper-runtime resume web")]
    Pause(IdArgs),
    /// Thaw the processes of a paused container
    #[command(after_help = "\
Examples:
  reaper-runtime resume web")]
    Resume(IdArgs),
    Update(UpdateArgs),
    /// Wait for the end of a container, and print its exit code
    #[command(after_help = "\
Examples:
  reaper-runtime wait web
  test \"$(reaper-runtime wait web)\" = 0 && echo it went well")]
    Wait(IdArgs),
    Logs(LogsArgs),
    Events(EventsArgs),
    Stats(StatsArgs),
    Metrics(MetricsArgs),
    Overlay(OverlayArgs),
    /// Print what this runtime supports, as JSON
    #[command(after_help = "\
Examples:
  reaper-runtime features")]
    Features,
    Spec(SpecArgs),
    Prune(PruneArgs),
    Doctor(DoctorArgs),
    Node(NodeArgs),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// Print the version
    #[command(after_help = "\
Examples:
  reaper-runtime version")]
    Version,
}

#[cfg(test)]
mod tests;
