//! `features`.

use std::io::Write;

use reaper_exec::cgroup::{DeviceControl, Hierarchies};
use reaper_spec::{HookKind, OCI_VERSION, SeccompArch, SeccompFlag, SeccompOp};
use serde_json::{Value, json};

use super::{capabilities, output::print_json};
use crate::{error::Result, outcome::ExitAction};

/// OCI's features structure (runtime-spec, features.md). A container is a process of the host: it
/// has the mount namespace of its view, and joins others.
///
/// The structure has a place for the capabilities that the program knows; those that it cannot grant
/// here are in an annotation, and so is by what device rules hold here.
pub(crate) fn run(out: &mut dyn Write) -> Result<ExitAction> {
    let hooks = HookKind::ALL.map(HookKind::as_str);
    let mut features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": hooks,
        "mountOptions": [
            "bind", "private", "rbind", "ro", "rprivate", "rro", "rshared", "rslave", "rw",
            "shared", "slave",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": capabilities::known(),
            "cgroup": { "v1": true, "v2": true, "systemd": cfg!(feature = "systemd"), "systemdUser": false },
            "seccomp": seccomp(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
        },
        "annotations": { "reaper.runtime.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": ["reaper.runtime/"],
    });
    let missing = capabilities::missing();
    if !missing.is_empty() {
        features["annotations"]["reaper.runtime.capabilities.missing"] =
            Value::from(missing.join(","));
    }
    let hierarchies = Hierarchies::find().unwrap_or_default();
    features["annotations"]["reaper.runtime.devices"] =
        Value::from(match DeviceControl::find(&hierarchies) {
            Ok(DeviceControl::V1) => "cgroup v1",
            Ok(_) => "bpf",
            Err(_) => "none",
        });
    print_json(out, &features)?;
    Ok(ExitAction::DONE)
}

/// What filters may hold, where this program was built with them.
fn seccomp() -> Value {
    if cfg!(not(feature = "seccomp")) {
        return json!({ "enabled": false });
    }
    let flags: Vec<_> = SeccompFlag::ALL.iter().map(|one| one.as_str()).collect();
    let arches: Vec<_> = SeccompArch::ALL.iter().map(|one| one.as_str()).collect();
    let operators: Vec<_> = SeccompOp::ALL.iter().map(|one| one.as_str()).collect();
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        "operators": operators,
        "archs": arches,
        "knownFlags": flags,
        "supportedFlags": flags,
    })
}
