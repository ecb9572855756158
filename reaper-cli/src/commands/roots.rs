//! The state roots that a command is about.

use std::{fs, io, path::Path, sync::Arc};

use reaper_exec::Engine;
use reaper_overlay::ViewRequest;
use reaper_spec::ContainerId;
use reaper_state::StateRoot;

use super::context::CommandContext;
use crate::{
    error::{Error, Result},
    host::ContainerEngine,
};

/// The caller's root, and unless it named one namespace of containerd's those of all of them. With each
/// what stands before the names of its containers.
pub(super) fn roots(call: &CommandContext) -> Result<Vec<(String, StateRoot)>> {
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

/// The engines of these roots. With each what stands before the ids of its containers where they are printed with those
/// of others.
pub(super) fn engines(call: &CommandContext) -> Result<Vec<(String, ContainerEngine)>> {
    let own = call.containers.root();
    let open = |(prefix, root)| {
        let engine = if &root == own {
            shared(&call.containers)
        } else {
            (call.open)(root, &call.config)?
        };
        Ok((prefix, engine))
    };
    roots(call)?.into_iter().map(open).collect()
}

/// The same containers.
pub(super) fn shared(engine: &ContainerEngine) -> ContainerEngine {
    let executor = Arc::clone(engine.executor());
    Engine::new(executor, Arc::clone(engine.store()), engine.root().clone())
}

/// The container's name in its name that is unique on the machine.
pub(super) fn id_of(unique: &str) -> Option<ContainerId> {
    ContainerId::new(unique.split('~').next()?).ok()
}

/// Whether `unique` is what the container `id` of the state root `root` is called on the machine.
pub(super) fn is_of(root: &Path, id: &ContainerId, unique: &str) -> bool {
    let request = ViewRequest::new(id.clone(), "/".into());
    request.with_state_root(root).unique_id() == unique
}
