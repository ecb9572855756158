//! `features`.

use std::io::Write;

use reaper_spec::oci;
use serde_json::json;

use super::output::print_json;
use crate::{error::Result, outcome::ExitAction};

/// OCI's features structure. A workload is a process of the host: there are no namespaces but
/// the mount namespace of its view, no seccomp and no security labels.
pub(crate) fn run(out: &mut dyn Write) -> Result<ExitAction> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": oci::VERSION,
        "hooks": [],
        "mountOptions": [
            "bind", "private", "rbind", "ro", "rprivate", "rro", "rshared", "rslave", "rw",
            "shared", "slave",
        ],
        "linux": {
            "namespaces": [],
            "capabilities": [],
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false },
            "seccomp": { "enabled": false },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
        },
        "annotations": { "reaper.runtime.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": ["reaper.runtime/"],
    });
    print_json(out, &features)?;
    Ok(ExitAction::DONE)
}
