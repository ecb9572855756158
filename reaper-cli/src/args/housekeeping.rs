//! Options of the commands that look after this machine.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use clap_complete::Shell;

/// Check this machine, and say how to put right what is wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime doctor
  reaper-runtime --namespace k8s.io doctor    leftovers of Kubernetes' containers too
  reaper-runtime doctor --no-trial            only look
  reaper-runtime doctor --fix                 remove what is left, naming each thing
  reaper-runtime doctor --upgrade             which pods an upgrade changes
  reaper-runtime doctor --json

A container is made and removed again, with the node's configuration, in a private folder beside the
state and the overlays: that is the trial. Containers that there are are not touched. The exit code is
1 if something keeps containers from running.")]
pub(crate) struct DoctorArgs {
    /// Only look: make no container to see whether that works
    #[arg(long)]
    pub(crate) no_trial: bool,

    /// Remove what is left of containers that no longer exist: overlays, mounts, folders, cgroups
    #[arg(long)]
    pub(crate) fix: bool,

    /// Only name the running containers, of all of containerd's namespaces, that an earlier version started
    /// without what their spec says, and that have it once they are created anew
    #[arg(long, conflicts_with_all = ["no_trial", "fix"])]
    pub(crate) upgrade: bool,

    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Remove the containers that have stopped
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime prune --dry-run
  reaper-runtime prune --overlays 7d    and the overlays that nobody used for a week

What was written in an overlay of a container's own goes with the container.")]
pub(crate) struct PruneArgs {
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Also remove overlays that no container uses, and none has used for this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) overlays: Option<Duration>,
}

/// Print a script that completes this program's command lines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime completions bash > /usr/share/bash-completion/completions/reaper-runtime
  reaper-runtime completions zsh > \"${fpath[1]}/_reaper-runtime\"
  reaper-runtime completions fish > ~/.config/fish/completions/reaper-runtime.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Write the manual pages of this program and its commands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime man /usr/local/share/man/man1
  man reaper-runtime-run")]
pub(crate) struct ManArgs {
    /// The folder, which must exist
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}
