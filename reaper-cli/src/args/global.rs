//! Options in front of every command.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Where the state of the containers is [default: /run/reaper, or $REAPER_RUNTIME_ROOT]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,

    /// See the containers of this containerd namespace (k8s.io for Kubernetes)
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) namespace: Option<String>,

    /// The node's configuration [default: /etc/reaper/config.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Append log messages, errors included, to this file
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) log: Option<PathBuf>,

    /// How log messages are written
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        global = true
    )]
    pub(crate) log_format: LogFormat,

    /// Log more: to --log, or to stderr
    #[arg(long, global = true)]
    pub(crate) debug: bool,

    #[arg(long, hide = true)]
    pub(crate) systemd_cgroup: bool,

    #[arg(long, hide = true, value_name = "MODE")]
    pub(crate) rootless: Option<String>,

    #[arg(long, hide = true, value_name = "PATH")]
    pub(crate) criu: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// `time="…" level=info msg="…"`
    #[default]
    Text,
    /// An object a line, as engines read it
    Json,
}

impl GlobalArgs {
    /// The options of runc that were given and have no meaning here.
    pub(crate) fn without_meaning(&self) -> impl Iterator<Item = &'static str> {
        given([
            ("--systemd-cgroup", self.systemd_cgroup),
            ("--rootless", self.rootless.is_some()),
            ("--criu", self.criu.is_some()),
        ])
    }
}

/// The names of the options that were given.
pub(crate) fn given<const N: usize>(
    options: [(&'static str, bool); N],
) -> impl Iterator<Item = &'static str> {
    options
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
}
