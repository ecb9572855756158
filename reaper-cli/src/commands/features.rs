//! `features`.

use std::io::Write;

use reaper_spec::oci;
use serde_json::{Value, json};

use super::{capabilities, output::print_json};
use crate::{error::Result, outcome::ExitAction};

/// OCI's features structure (runtime-spec, features.md). A container is a process of the host: there
/// are no namespaces but the mount namespace of its view, no seccomp and no security labels.
///
/// The structure has a place for the capabilities that the program knows; those that it cannot grant
/// here are in an annotation.
pub(crate) fn run(out: &mut dyn Write) -> Result<ExitAction> {
    let mut features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": oci::VERSION,
        "hooks": [],
        "mountOptions": [
            "bind", "private", "rbind", "ro", "rprivate", "rro", "rshared", "rslave", "rw",
            "shared", "slave",
        ],
        "linux": {
            "namespaces": [],
            "capabilities": capabilities::known(),
            "cgroup": { "v1": false, "v2": true, "systemd": false, "systemdUser": false },
            "seccomp": { "enabled": false },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
        },
        "annotations": { "reaper.runtime.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": ["reaper.runtime/"],
    });
    let missing = capabilities::missing();
    if !missing.is_empty() {
        features["annotations"]["reaper.runtime.capabilities.missing"] =
            Value::from(missing.join(","));
    }
    print_json(out, &features)?;
    Ok(ExitAction::DONE)
}
