//! Options of `overlay`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reaper_overlay::Scope;

/// See, take over and undo what was written in an overlay
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime run --keep --name try1 --overlay=container -- make install
  reaper-runtime overlay diff try1                          what it would have changed
  reaper-runtime overlay export --output try1.tar try1      the same as an archive
  reaper-runtime overlay commit --yes try1 /usr/local/bin   change this machine so
  reaper-runtime delete try1                                and throw the rest away
  reaper-runtime overlay ls                                 which overlays there are

NAME is the name of a scope as `overlay ls` prints it, or as --overlay has it (group:NAME), or that of a container, which stands for the
scope that it is in; to reset or remove one that it shares, name the scope. An overlay of a container's own lives until the container is deleted; all others live
until `overlay rm`, or until the next boot if their base directory does not outlive it.")]
pub(crate) struct OverlayArgs {
    #[command(subcommand)]
    pub(crate) command: OverlayCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OverlayCommand {
    /// List the scopes: how much they hold, how old they are, who is in them
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  reaper-runtime overlay ls
  reaper-runtime overlay ls --json"
    )]
    Ls {
        #[command(flatten)]
        output: Output,
    },
    Diff(DiffArgs),
    /// Say how much space scopes take
    #[command(after_help = "\
Examples:
  reaper-runtime overlay du
  reaper-runtime overlay du --json node")]
    Du {
        /// Which scopes [default: all]
        #[arg(value_name = "NAME")]
        scopes: Vec<Scope>,

        #[command(flatten)]
        output: Output,
    },
    Export(ExportArgs),
    Commit(CommitArgs),
    /// Empty a scope that no container uses: its next member sees this machine as it is
    #[command(after_help = "\
Examples:
  reaper-runtime overlay reset node")]
    Reset {
        /// The scope, or its container
        #[arg(value_name = "NAME")]
        scope: Scope,
    },
    /// Remove scopes that no container uses, with all that was written in them
    #[command(after_help = "\
Examples:
  reaper-runtime overlay rm group:build")]
    Rm {
        /// The scopes, or their containers
        #[arg(value_name = "NAME", required = true)]
        scopes: Vec<Scope>,
    },
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what is different in a scope from this machine
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is a change and a path: A added, M modified, D deleted, T another type, P the mode, the
owner or extended attributes alone. Control characters in names are printed escaped.

Examples:
  reaper-runtime overlay diff try1
  reaper-runtime overlay diff --content node | less
  reaper-runtime overlay diff --json node")]
pub(crate) struct DiffArgs {
    /// The scope, or its container
    #[arg(value_name = "NAME")]
    pub(crate) scope: Scope,

    #[command(flatten)]
    pub(crate) output: Output,

    /// Show the lines that changed in text files as well
    #[arg(long)]
    pub(crate) content: bool,
}

/// Write what was changed in a scope as a tar archive
#[derive(Debug, Args)]
#[command(after_help = "\
A deleted file NAME is an empty entry .wh.NAME, a replaced directory has an entry .wh..wh..opq, as
in a layer of a container image. What cannot be in an archive (sockets, names that begin with .wh.),
and what changed while it was read, is named, and the exit code is 1.

Examples:
  reaper-runtime overlay export try1 | tar t
  reaper-runtime overlay export --output try1.tar try1")]
pub(crate) struct ExportArgs {
    /// The scope, or its container
    #[arg(value_name = "NAME")]
    pub(crate) scope: Scope,

    /// Where to write it [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Make changes of a scope on this machine itself
#[derive(Debug, Args)]
#[command(after_help = "\
Without --yes it only says what it would do. Everything is copied next to where it belongs and checked
first; then each file is replaced in one step. If one fails, all is undone; a commit that was
interrupted is finished or undone by the next one.

Examples:
  reaper-runtime overlay commit try1 /etc /usr/local
  reaper-runtime overlay commit --yes try1 /etc/motd
  reaper-runtime overlay commit --yes try1 /             everything")]
pub(crate) struct CommitArgs {
    /// The scope, or its container
    #[arg(value_name = "NAME")]
    pub(crate) scope: Scope,

    /// What to take over: these files, and all below these directories
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
}
