//! Options of `config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;

/// Check the configuration, or show what it says
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  reaper-runtime config check                     what is in force for this call
  reaper-runtime config check new-config.toml     a file, before it is put in place
  reaper-runtime config show"
)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with the configuration: file, line and key
    ///
    /// Without a file it is that which every other command would use, with the environment. The
    /// exit status is 0 if nothing is wrong.
    #[command(after_help = "\
Examples:
  reaper-runtime config check                    what is in force for this call
  reaper-runtime config check new-config.toml    a file, before it is put in place")]
    Check {
        /// The file, instead of the one in force
        file: Option<PathBuf>,
    },
    /// Print the settings that are not at their defaults, and where each was made
    #[command(after_help = "\
Examples:
  reaper-runtime config show
  reaper-runtime config show --format json | jq -r '.[].key'")]
    Show {
        /// How they are printed
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: Format,
    },
}
