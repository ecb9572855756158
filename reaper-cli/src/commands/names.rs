//! Which container a name means.
//!
//! containerd's containers are below a namespace of its own, `k8s.io` for Kubernetes. A caller that names a pod
//! need not know that: the pod is looked for in all of them, and the call goes on with the engine of the one that
//! has it.

use reaper_spec::{ContainerId, ContainerType, CriAnnotations};
use reaper_state::Record;

use super::{
    context::CommandContext,
    roots::{engines, shared},
};
use crate::{
    args::{ContainerName, NameInPod},
    container::{PodNames, pod_names},
    error::{Error, Result},
    host::ContainerEngine,
    suggest::closest,
};

/// The container that is meant. From now on the call is about the state root that it is in.
pub(super) async fn find(call: &mut CommandContext, name: &ContainerName) -> Result<ContainerId> {
    let name = match name {
        ContainerName::Id(id) => return Ok(id.clone()),
        ContainerName::InPod(name) => name,
    };
    let engines = engines(call)?;
    let (engine, id) = match of_namespace(&engines, name) {
        Some(found) => found,
        None => in_pod(&engines, name).await?,
    };
    call.containers = shared(engine);
    Ok(id)
}

/// The containers that are meant, all of one state root, which the call is about from now on.
pub(super) async fn find_all(
    call: &mut CommandContext,
    names: &[ContainerName],
) -> Result<Vec<ContainerId>> {
    let mut found = Vec::new();
    let mut first = None;
    for name in names {
        found.push(find(call, name).await?);
        let root = call.containers.root().path();
        if first.get_or_insert_with(|| root.to_owned()) != root {
            return Err(Error::Option {
                option: "ID",
                problem:
                    "these are of different namespaces of containerd: name those of one at a time"
                        .to_owned(),
            });
        }
    }
    Ok(found)
}

/// What the containers of pods can be called, sorted.
pub(super) fn all(call: &CommandContext) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (_, engine) in &engines(call)? {
        names.extend(candidates(engine)?.iter().map(|it| it.names.line()));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// A container of a pod.
struct Candidate<'a> {
    engine: &'a ContainerEngine,
    record: Record,
    names: PodNames,
}

/// The containers of pods, without their sandboxes, which have no process. One whose record cannot be read has
/// no name: its id does.
fn candidates(engine: &ContainerEngine) -> Result<Vec<Candidate<'_>>> {
    let read = |id| {
        let record = engine.store().get(&id).ok()?.record;
        let cri = CriAnnotations::from_annotations(&record.annotations);
        let names = pod_names(&record)?;
        let is_sandbox = cri.container_type == Some(ContainerType::Sandbox);
        (!is_sandbox && names.container.is_some()).then_some(Candidate {
            engine,
            record,
            names,
        })
    };
    Ok(engine
        .store()
        .list()?
        .into_iter()
        .filter_map(read)
        .collect())
}

/// The container that `doctor` and `prune` print as `NAMESPACE/ID`, by a namespace of containerd.
fn of_namespace<'a>(
    engines: &'a [(String, ContainerEngine)],
    name: &NameInPod,
) -> Option<(&'a ContainerEngine, ContainerId)> {
    let id = match name.container {
        None => ContainerId::new(name.pod.as_str()).ok()?,
        Some(_) => return None,
    };
    let prefix = format!("{}/", name.namespace);
    let (_, engine) = engines.iter().find(|(it, _)| *it == prefix)?;
    engine.store().get(&id).ok()?;
    Some((engine, id))
}

async fn in_pod<'a>(
    engines: &'a [(String, ContainerEngine)],
    name: &NameInPod,
) -> Result<(&'a ContainerEngine, ContainerId)> {
    let mut all = Vec::new();
    for (_, engine) in engines {
        all.extend(candidates(engine)?);
    }
    let mut meant: Vec<_> = all.iter().filter(|it| is_meant(name, &it.names)).collect();
    if meant.len() > 1 {
        // What a container of that name was before it was restarted is there until containerd removes it.
        let mut alive = Vec::new();
        for &candidate in &meant {
            let state = candidate.engine.known_state(&candidate.record.id).await;
            if state.is_ok_and(|(record, _)| record.status.is_alive()) {
                alive.push(candidate);
            }
        }
        if alive.len() == 1 {
            meant = alive;
        }
    }
    match meant[..] {
        [only] => Ok((only.engine, only.record.id.clone())),
        [] => {
            let known: Vec<_> = all.iter().map(|it| it.names.line()).collect();
            Err(Error::NoPod {
                name: name.to_string(),
                meant: closest(&name.to_string(), &known).cloned(),
            })
        }
        ref several => Err(Error::Ambiguous {
            name: name.to_string(),
            candidates: several
                .iter()
                .map(|it| format!("{} ({})", it.names.line(), it.record.id))
                .collect(),
        }),
    }
}

fn is_meant(name: &NameInPod, names: &PodNames) -> bool {
    let pod = format!("{}/{}", name.namespace, name.pod);
    names.pod == pod && (name.container.is_none() || name.container == names.container)
}
