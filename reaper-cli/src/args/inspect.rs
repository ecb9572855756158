//! Options of the commands that look at containers.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::name::ContainerName;

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: ContainerName,
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

    /// Print what containers can be called, for completions
    #[arg(long, hide = true)]
    pub(crate) names: bool,
}

/// List the processes of a container
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime ps web
  reaper-runtime ps default/web-0        that of a pod of Kubernetes
  reaper-runtime ps --format json web    pids only
  reaper-runtime ps web -o pid,rss,args  the columns of ps(1), with its options")]
pub(crate) struct PsArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: ContainerName,

    /// How to print them
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) format: Format,

    /// Options of ps(1), which prints the processes then
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PS_OPTIONS"
    )]
    pub(crate) ps_options: Vec<String>,
}

/// Show what a detached command, or a container of a pod, has written
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime run --detach --name web -- ./serve
  reaper-runtime logs web
  reaper-runtime logs --follow --tail 20 web    until it ends
  reaper-runtime logs default/web-0/app         of a container of a pod

Both outputs of what `run --detach -- COMMAND` runs are kept in a file, below the configuration's
log.output, until the container is deleted. Those of a pod's container are read from where the kubelet
has containerd write them, below /var/log/pods.")]
pub(crate) struct LogsArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: ContainerName,

    /// Go on until the container ends
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Begin with the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) tail: Option<u64>,
}

/// Show what happens to the containers, or what one of them uses
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime events                      created, started, stopped …, as it happens
  reaper-runtime events --json               an object a line
  reaper-runtime --namespace k8s.io events
  reaper-runtime events --stats web          what web uses, once, as JSON
  reaper-runtime events --interval 1s web    the same every second until it ends")]
pub(crate) struct EventsArgs {
    /// The container of which to print what it uses: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: Option<ContainerName>,

    /// For programs
    #[arg(long)]
    pub(crate) json: bool,

    /// Print it once
    #[arg(long, requires = "id")]
    pub(crate) stats: bool,

    /// How long to wait in between
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) interval: Duration,
}

/// Show what containers use, again and again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime stats                       all that run, as top(1) does
  reaper-runtime stats --no-stream web db    once
  reaper-runtime stats --json                an array a line

CPU % is of one processor, over the time since the line before. MEMORY is without file pages that were
not used lately, as the kubelet counts. PIDS are processes and threads. READ / WRITTEN is of block
devices, over the container's life.")]
pub(crate) struct StatsArgs {
    /// The containers, by id or as NAMESPACE/POD[/CONTAINER]; without any, all that run
    #[arg(id = "id", value_name = "ID")]
    pub(crate) ids: Vec<ContainerName>,

    /// Print it once
    #[arg(long)]
    pub(crate) no_stream: bool,

    /// For programs
    #[arg(long)]
    pub(crate) json: bool,

    /// How long to wait in between
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) interval: Duration,
}
