//! Options of the commands that look at containers.

use std::time::Duration;

use clap::{Args, ValueEnum};
use reaper_spec::ContainerId;

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// The container's name
    pub(crate) id: ContainerId,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// For programs
    Json,
}

/// List the containers
#[derive(Debug, Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  reaper-runtime list
  reaper-runtime --namespace k8s.io list --format json"
)]
pub(crate) struct ListArgs {
    /// How to print them
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) format: Format,

    /// Print the names only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// List the processes of a container
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime ps web
  reaper-runtime ps --format json web    pids only")]
pub(crate) struct PsArgs {
    /// The container's name
    pub(crate) id: ContainerId,

    /// How to print them
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) format: Format,

    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) ps_options: Vec<String>,
}

/// Print what a container uses, as JSON
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime events --stats web          once
  reaper-runtime events --interval 1s web    every second until it ends")]
pub(crate) struct EventsArgs {
    /// The container's name
    pub(crate) id: ContainerId,

    /// Print it once
    #[arg(long)]
    pub(crate) stats: bool,

    /// How long to wait in between
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) interval: Duration,
}
