//! `state migrate`.

use std::io::Write;

use reaper_spec::{ContainerId, StoreKind};
use reaper_state::{Error as StoreError, MemoryStore, Migration, StateStore, migrate};

use super::{context::CommandContext, output::print, roots::roots, selection::incomplete};
use crate::{
    args::MigrateArgs,
    error::{Error, Result},
    outcome::ExitAction,
};

pub(crate) fn run(
    call: &CommandContext,
    args: &MigrateArgs,
    to: StoreKind,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let from = args.from.unwrap_or(call.config.store);
    if from == to {
        return Err(Error::Option {
            option: "--to",
            problem: format!("the store is {to} already; name the one to move from by --from"),
        });
    }
    let mut counts = Counts::default();
    for (name, root) in roots(call)? {
        let (from, to) = (
            reaper_state::open(from, &root)?,
            reaper_state::open(to, &root)?,
        );
        let migration = if args.dry_run {
            rehearse(&*from, &*to)?
        } else {
            migrate(&*from, &*to)?
        };
        counts.add(&migration);
        show(&name, &migration, args, out)?;
        if args.remove {
            for id in migration.copied.iter().chain(&migration.kept) {
                remove(&*from, id)?;
                print(out, format_args!("removed {name}{id}\n"))?;
            }
        }
    }
    incomplete("containers", "moved", counts.failed, counts.all)?;
    Ok(ExitAction::DONE)
}

#[derive(Default)]
struct Counts {
    failed: usize,
    all: usize,
}

impl Counts {
    fn add(&mut self, migration: &Migration) {
        let failed = migration.failed.len();
        self.failed += failed;
        self.all += failed + migration.copied.len() + migration.kept.len();
    }
}

/// What a move would do, done to a copy of the target.
fn rehearse(from: &dyn StateStore, to: &dyn StateStore) -> Result<Migration> {
    let scratch = MemoryStore::new();
    let unreadable = migrate(to, &scratch)?.failed;
    let mut migration = migrate(from, &scratch)?;
    for (id, error) in unreadable {
        let others = migration.copied.len();
        migration.copied.retain(|copied| *copied != id);
        if migration.copied.len() < others {
            migration.failed.push((id, error));
        }
    }
    Ok(migration)
}

fn show(name: &str, migration: &Migration, args: &MigrateArgs, out: &mut dyn Write) -> Result<()> {
    let copied = if args.dry_run { "would copy" } else { "copied" };
    for id in &migration.copied {
        print(out, format_args!("{copied} {name}{id}\n"))?;
    }
    for id in &migration.kept {
        print(out, format_args!("kept {name}{id}\n"))?;
    }
    for (id, error) in &migration.failed {
        print(out, format_args!("failed {name}{id}: {error}\n"))?;
    }
    Ok(())
}

fn remove(store: &dyn StateStore, id: &ContainerId) -> Result<()> {
    match store.delete(id) {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
