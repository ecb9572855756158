//! `state migrate`.

use std::{fs, io, io::Write};

use reaper_spec::{ContainerId, StoreKind};
use reaper_state::{Error as StoreError, MemoryStore, Migration, StateRoot, StateStore, migrate};

use super::{context::CommandContext, output::print, selection::incomplete};
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

/// The roots that are meant, and what stands before the names of their containers.
fn roots(call: &CommandContext) -> Result<Vec<(String, StateRoot)>> {
    let own = call.containers.root();
    let mut roots = vec![(String::new(), own.clone())];
    if call.one_namespace {
        return Ok(roots);
    }
    let folder = own.path().join("ns");
    let failed = || Error::io(format!("list {}", folder.display()));
    match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries.map_err(failed())? {
                let name = entry.map_err(failed())?.file_name();
                let name = name.to_string_lossy();
                roots.push((format!("{name}/"), own.containerd_namespace(&name)));
            }
        }
    }
    roots[1..].sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(roots)
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
