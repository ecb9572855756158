//! Options of the commands that make and end containers.

use std::path::PathBuf;

use clap::Args;
use reaper_exec::Signal;
use reaper_spec::ContainerId;

use super::{global::given, name::ContainerName};

/// Make a container, and leave its process ready to start
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime create --bundle /tmp/hello hello
  reaper-runtime start hello > output

The bundle is a folder with a config.json as small as
  {\"process\": {\"args\": [\"/bin/sh\", \"-c\", \"echo hi\"]}}

The program gets the standard streams of `start`. With --pid-file, --console-socket or
--log-format json, as engines call it, it gets those of `create`.")]
pub(crate) struct CreateArgs {
    /// The container's name
    pub(crate) id: ContainerId,

    #[command(flatten)]
    pub(crate) bundle: BundleArgs,
}

/// What `create` and `run` say of a bundle.
#[derive(Debug, Default, Args)]
pub(crate) struct BundleArgs {
    /// The folder of config.json [default: the working directory]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,

    /// Write to this file the pid of a process that ends as the container does
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Send the terminal's master to this Unix socket
    #[arg(long, value_name = "PATH")]
    pub(crate) console_socket: Option<PathBuf>,

    /// Hand on N descriptors besides the standard streams, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,

    /// Leave it the caller's session keyring; by default it gets a new one
    #[arg(long)]
    pub(crate) no_new_keyring: bool,

    #[arg(long, hide = true)]
    no_pivot: bool,

    #[arg(long, hide = true)]
    no_subreaper: bool,
}

impl BundleArgs {
    /// The options of runc that were given and have no meaning here.
    pub(crate) fn without_meaning(&self) -> impl Iterator<Item = &'static str> {
        given([
            ("--no-pivot", self.no_pivot),
            ("--no-subreaper", self.no_subreaper),
        ])
    }
}

/// Run the program of a container that was created
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime start hello > output
  reaper-runtime start hello --bundle /tmp/hello   creates it first if it does not exist")]
pub(crate) struct StartArgs {
    /// The container's name
    pub(crate) id: ContainerId,

    /// Create the container from this bundle first, unless it exists
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
}

/// Send a signal to a container's process
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime kill web              SIGTERM
  reaper-runtime kill web KILL         or SIGKILL, or 9
  reaper-runtime kill --all web HUP    to every process of the container
  reaper-runtime kill default/web-0    the only container of a pod of Kubernetes")]
pub(crate) struct KillArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: ContainerName,

    /// The signal, by name or number [default: TERM]
    #[arg(value_name = "SIGNAL", conflicts_with = "signal")]
    pub(crate) positional: Option<Signal>,

    /// The same as an option
    #[arg(long, short, value_name = "SIGNAL")]
    pub(crate) signal: Option<Signal>,

    /// Send it to all processes of the container
    #[arg(long, short)]
    pub(crate) all: bool,
}

/// Remove a container that has stopped
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime delete web
  reaper-runtime delete --force web    kills it first; no error if it does not exist")]
pub(crate) struct DeleteArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: ContainerName,

    /// Kill it first if it has not stopped
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// Write a config.json to start from
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mkdir hello && reaper-runtime spec --bundle hello
  reaper-runtime run --bundle hello hello")]
pub(crate) struct SpecArgs {
    /// Where to write it [default: the working directory]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,

    #[arg(long, hide = true)]
    pub(crate) rootless: bool,
}
