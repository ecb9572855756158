//! OCI's state of a container, as hooks and seccomp agents are told of it.

use std::{collections::BTreeMap, path::Path};

use reaper_spec::{ContainerId, OCI_VERSION, Status};
use serde_json::{Value, json};

/// The state of a container (runtime-spec, runtime.md, "State").
pub(crate) fn state(
    id: &ContainerId,
    status: Status,
    pid: Option<u32>,
    bundle: Option<&Path>,
    annotations: Option<&BTreeMap<String, String>>,
) -> Value {
    // The specification knows no frozen one.
    let status = match status {
        Status::Created | Status::Running | Status::Stopped => status,
        Status::Paused => Status::Running,
        _ => Status::Creating,
    };
    let mut state = json!({
        "ociVersion": OCI_VERSION,
        "id": id,
        "status": status,
        "bundle": bundle,
        "annotations": annotations,
    });
    if let Some(pid) = pid {
        state["pid"] = pid.into();
    }
    state
}
