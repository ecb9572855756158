//! Options of `run`.

use clap::Args;
use reaper_spec::ContainerId;

use super::{container::BundleArgs, process::ProcessArgs};

/// Run a command, or a bundle, and wait for its end
#[derive(Debug, Args)]
#[command(
    override_usage = "\
reaper-runtime run [OPTIONS] -- COMMAND...
       reaper-runtime run [--bundle DIR] [OPTIONS] ID",
    after_help = "\
Examples:
  reaper-runtime run -- make install
  reaper-runtime run --name try --keep --env DEBUG=1 --cwd /srv --user 33 -- ./serve
  reaper-runtime run --keep --name try --overlay=container -- make install
  reaper-runtime run -t -- bash
  reaper-runtime run --detach --name web -- ./serve && reaper-runtime logs --follow web
  reaper-runtime run --bundle /tmp/hello hello

A command runs in the working directory and the environment of the caller, and has its umask, nice
value and ignored signals, but none of its keys. The exit code is the command's, or 128 and the
signal's number where a signal ended it. Signals are passed on, those of keys to all that runs in
the foreground; what Ctrl-C ends, ends this call by the same signal. At the
end the container is deleted unless it is to be kept, and with it an overlay of its own
(--overlay=container). What is written in any other overlay stays there until
`reaper-runtime overlay rm`; see `reaper-runtime overlay --help`.

Without root it runs in a user namespace, over an overlay as well, as the caller; --user 0 calls
the caller root inside."
)]
pub(crate) struct RunArgs {
    /// The container's name, for a bundle
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    pub(crate) id: Option<ContainerId>,

    /// The command and its arguments
    #[arg(last = true)]
    pub(crate) command: Vec<String>,

    /// The container's name, for a command [default: one is made up]
    #[arg(long, conflicts_with = "id")]
    pub(crate) name: Option<ContainerId>,

    #[command(flatten)]
    pub(crate) settings: ProcessArgs,

    /// Which overlay: node, namespace, pod, container, none, or the name of a group
    #[arg(long, value_name = "SCOPE", conflicts_with = "id")]
    pub(crate) overlay: Option<String>,

    /// Make all that the command sees read-only, but /proc, /dev/shm and terminals
    #[arg(long, conflicts_with = "id")]
    pub(crate) read_only: bool,

    /// Return when it runs
    #[arg(long, short)]
    pub(crate) detach: bool,

    /// Keep the container when it has ended
    #[arg(long)]
    pub(crate) keep: bool,

    #[command(flatten)]
    pub(crate) bundle: BundleArgs,
}
