//! Options of `exec`.

use std::path::PathBuf;

use clap::Args;

use super::{global::given, name::ContainerName, process::ProcessArgs};

/// Run another process in a container
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime exec web ps -ef
  reaper-runtime exec -t web bash
  reaper-runtime exec -t default/web-0/app bash    in a container of a pod
  reaper-runtime exec --detach --pid-file pid --process process.json web

The exit code is the process's; 128 and the signal's number where a signal ended it; 255 where it
could not be run.")]
pub(crate) struct ExecArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: ContainerName,

    /// The program and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "process",
        conflicts_with = "process"
    )]
    pub(crate) command: Vec<String>,

    /// Read the process from this file, an OCI process object
    #[arg(long, short, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: ProcessArgs,

    /// Return when it runs
    #[arg(long, short)]
    pub(crate) detach: bool,

    /// Write to this file the pid of a process that ends as the process does
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Send the terminal's master to this Unix socket
    #[arg(long, value_name = "PATH")]
    pub(crate) console_socket: Option<PathBuf>,

    /// Hand on N descriptors besides the standard streams, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,

    /// Give the process a capability that its container does not have
    #[arg(long, short, value_name = "CAP_NAME")]
    pub(crate) cap: Vec<String>,

    /// Give the process this SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,

    /// Confine the process by this AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,

    #[arg(long, hide = true)]
    cgroup: Vec<String>,

    #[arg(long, hide = true)]
    ignore_paused: bool,

    #[arg(long, hide = true)]
    no_subreaper: bool,
}

impl ExecArgs {
    /// The options of runc that were given and have no meaning here.
    pub(crate) fn without_meaning(&self) -> impl Iterator<Item = &'static str> {
        given([
            ("--cgroup", !self.cgroup.is_empty()),
            ("--ignore-paused", self.ignore_paused),
            ("--no-subreaper", self.no_subreaper),
        ])
    }
}
