//! `overlay`: what was written over this machine.

mod changes;
mod each;
mod list;
mod progress;

use std::{io::Write, sync::Arc};

use reaper_overlay::{Overlays, Scope};
use reaper_spec::ContainerId;
use reaper_state::{StateRoot, StateStore};

use self::each::each;
use super::{
    context::CommandContext,
    roots::{id_of, is_of, roots},
};
use crate::{
    args::{OverlayArgs, OverlayCommand},
    container::{self, PodNames},
    error::{Error, Result},
    outcome::ExitAction,
};

pub(crate) fn run(
    call: &CommandContext,
    args: &OverlayArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let overlays = Overlays::new(&call.config.overlay);
    match &args.command {
        OverlayCommand::Ls { output } => {
            let stores = stores(call);
            let names = |member: &str| pod_names(&stores, member);
            list::list(&overlays, *output, call.colours, &names, out)?;
        }
        OverlayCommand::Du { scopes, output } => {
            let scopes: Vec<_> = scopes.iter().map(|scope| of(call, scope)).collect();
            let stores = stores(call);
            let names = |member: &str| pod_names(&stores, member);
            list::usage(&overlays, &scopes, *output, &names, out)?;
        }
        OverlayCommand::Diff(args) => {
            changes::diff(&overlays, &of(call, &args.scope), args, out)?;
        }
        OverlayCommand::Export(args) => {
            changes::export(&overlays, &of(call, &args.scope), args, out)?;
        }
        OverlayCommand::Commit(args) => {
            changes::commit(&overlays, &of(call, &args.scope), args, out)?;
        }
        OverlayCommand::Reset { scope } => overlays.reset(&alone(call, scope)?)?,
        OverlayCommand::Rm { scopes } => {
            let scopes: Result<Vec<_>> = scopes.iter().map(|scope| alone(call, scope)).collect();
            remove(&overlays, &scopes?)?;
        }
    }
    Ok(ExitAction::DONE)
}

/// Removes each of them. One that cannot be removed is named and does not keep the others.
fn remove(overlays: &Overlays, scopes: &[Scope]) -> Result<()> {
    if let [scope] = scopes {
        // Its error is the command's, with the way out.
        return Ok(overlays.remove(scope)?);
    }
    each(scopes, "removed", true, |scope| overlays.remove(scope))
}

/// What a member of a scope is in Kubernetes. It may be of any of containerd's namespaces, which
/// share the overlays.
fn pod_names(stores: &[(StateRoot, Arc<dyn StateStore>)], member: &str) -> Option<PodNames> {
    let id = id_of(member)?;
    let (_, store) = stores
        .iter()
        .find(|(root, _)| is_of(root.path(), &id, member))?;
    container::pod_names(&store.get(&id).ok()?.record)
}

/// The stores of the state roots. Of one that cannot be opened nothing is known.
fn stores(call: &CommandContext) -> Vec<(StateRoot, Arc<dyn StateStore>)> {
    let roots = roots(call).unwrap_or_default().into_iter();
    let open = |root: StateRoot| {
        let store = reaper_state::open(call.config.store, &root).ok()?;
        Some((root, store))
    };
    roots.filter_map(|(_, root)| open(root)).collect()
}

/// The scope that is meant: where `named` is a container of this root, the one that it is in.
fn of(call: &CommandContext, named: &Scope) -> Scope {
    let id = named.container_id().map(ContainerId::new);
    let Some(Ok(id)) = id else {
        return named.clone();
    };
    let stored = call.containers.store().get(&id).ok();
    let scope = stored.and_then(|stored| container::scope(&stored.record));
    scope.unwrap_or_else(|| named.clone())
}

/// As [`of`], for what is the end of all that was written there: a container's name must not stand
/// for what it shares.
fn alone(call: &CommandContext, named: &Scope) -> Result<Scope> {
    let scope = of(call, named);
    match named.container_id() {
        Some(id) if !scope.is_container() => Err(Error::Option {
            option: "NAME",
            problem: format!("{id} shares the overlay {scope} with others: name that"),
        }),
        _ => Ok(scope),
    }
}
