//! Options of `state`.

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use reaper_spec::StoreKind;

use super::name::ContainerName;

/// Print the state of a container as JSON, or move the states to another store
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "\
reaper-runtime state [OPTIONS] ID
       reaper-runtime state migrate --to STORE",
    after_help = "\
Examples:
  reaper-runtime state web
  reaper-runtime state migrate --to sqlite --dry-run"
)]
pub(crate) struct StateArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    #[arg(required = true)]
    pub(crate) id: Option<ContainerName>,

    #[command(subcommand)]
    pub(crate) command: Option<StateCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    Migrate(MigrateArgs),
}

/// Move what is known of the containers to another store, while they run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime state migrate --to sqlite --dry-run    what it would do
  reaper-runtime state migrate --to sqlite              copy all
  reaper-runtime state migrate --from file --to sqlite --remove

ContainerEngine run on. First copy; then set `store` in the configuration, which new shims and calls
follow; and when the shims of before have ended, call it once more with --from and --remove: it
copies what they have written since, and removes what the old store had. Without --namespace this
is about the containers of the state root and those of every containerd namespace below it.

A container called `migrate` has its state printed by `state migrate` without --to.")]
pub(crate) struct MigrateArgs {
    /// The store to move to
    #[arg(long, value_name = "STORE", value_parser = store())]
    pub(crate) to: Option<StoreKind>,

    /// The store to move from [default: the configuration's]
    #[arg(long, value_name = "STORE", value_parser = store(), requires = "to")]
    pub(crate) from: Option<StoreKind>,

    /// Only say what would be moved
    #[arg(long, requires = "to")]
    pub(crate) dry_run: bool,

    /// Remove from the old store what the new one has
    #[arg(long, requires = "to", conflicts_with = "dry_run")]
    pub(crate) remove: bool,
}

fn store() -> impl TypedValueParser<Value = StoreKind> {
    PossibleValuesParser::new(StoreKind::ALL.iter().map(|kind| kind.as_str())).map(|name| {
        let named = StoreKind::ALL.iter().find(|kind| kind.as_str() == name);
        named.copied().unwrap_or_default()
    })
}
