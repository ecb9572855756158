//! Options of `node`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Install Reaper on this node, see what is installed, upgrade it, and take it out again
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  reaper-runtime node install --dry-run     what would be written
  reaper-runtime node install
  reaper-runtime node status
  reaper-runtime node uninstall"
)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Put the programs and two runtime handlers on this node, and have containerd know them
    ///
    /// The handlers are `reaper-v2`, whose pods share one view of the node, and `reaper-v2-pod`, whose pods
    /// have a view and process ids of their own. Called again it puts right what is missing, and else does
    /// nothing. One that was interrupted, however, is finished by the next.
    #[command(after_help = "\
Examples:
  reaper-runtime node install --dry-run
  reaper-runtime node install
  reaper-runtime node install --no-restart         containerd is restarted by something else
  reaper-runtime node install --restart-command 'rc-service containerd restart'
  reaper-runtime node install --sysroot /mnt       an image, which is not running

The programs are those beside the one that is called. containerd is restarted by systemd, which leaves pods
running.")]
    Install(NodeInstallArgs),
    /// Say what is installed, and what is wrong with it
    ///
    /// The exit status is 0 if nothing is wrong.
    #[command(after_help = "\
Examples:
  reaper-runtime node status
  reaper-runtime node status --json | jq -r '.[] | select(.level != \"good\").found'")]
    Status(NodeStatusArgs),
    /// Replace the programs of an installation by those beside the one that is called
    ///
    /// Pods that run keep the program that they were started with; new ones have the new.
    #[command(after_help = "\
Examples:
  ./reaper-runtime node upgrade --dry-run
  ./reaper-runtime node upgrade")]
    Upgrade(NodeInstallArgs),
    /// Take everything out again: handlers, programs, logs and overlays
    ///
    /// Files of containerd's configuration are as they were before. Refused while containers of Reaper run.
    #[command(after_help = "\
Examples:
  reaper-runtime node uninstall --dry-run
  reaper-runtime node uninstall
  reaper-runtime node uninstall --force     although containers run: they stay until they end

What an administrator wrote, such as /etc/reaper/config.toml, stays.")]
    Uninstall(NodeUninstallArgs),
}

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NodeTarget {
    /// containerd's configuration file [default: that of the containerd that runs, else the one there is]
    #[arg(long, value_name = "FILE")]
    pub(crate) containerd_config: Option<PathBuf>,

    /// The image or chroot in this directory instead of this machine: nothing of it is executed
    #[arg(long, value_name = "DIR")]
    pub(crate) sysroot: Option<PathBuf>,
}

/// How it is changed.
#[derive(Debug, Args)]
pub(crate) struct NodeChange {
    /// Only show what would be written, as a diff
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Leave it to others to restart containerd
    #[arg(long)]
    pub(crate) no_restart: bool,

    /// What restarts containerd where systemd does not; it has to return when containerd answers
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_restart")]
    pub(crate) restart_command: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NodeInstallArgs {
    #[command(flatten)]
    pub(crate) target: NodeTarget,

    #[command(flatten)]
    pub(crate) change: NodeChange,

    /// Where the programs are put [default: a directory in containerd's PATH, /usr/local/bin if that is]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,

    /// Where the programs are taken from [default: the directory of this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct NodeStatusArgs {
    #[command(flatten)]
    pub(crate) target: NodeTarget,

    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodeUninstallArgs {
    #[command(flatten)]
    pub(crate) target: NodeTarget,

    #[command(flatten)]
    pub(crate) change: NodeChange,

    /// Although containers run. Their state and their overlays stay
    #[arg(long)]
    pub(crate) force: bool,
}
