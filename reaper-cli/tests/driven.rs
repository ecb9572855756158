//! `reaper-runtime` as the OCI runtime that an executor drives.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use reaper_exec::{
    HostExecutor, OciExecutor,
    conformance::{RULES, Subject},
};
use reaper_spec::ProcessSpec;
use reaper_state::StateRoot;
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_reaper-runtime");

/// It is called with nothing in its environment, and is to leave the machine's overlays alone.
fn runtime(folder: &Path) -> PathBuf {
    let script = folder.join("runtime");
    let text = format!("#!/bin/sh\nREAPER_OVERLAY_ENABLED=false exec {PROGRAM} \"$@\"\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    script
}

fn write_bundle(folder: &Path, process: &ProcessSpec) -> PathBuf {
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": { "args": process.args, "env": process.env, "cwd": process.cwd },
        "root": { "path": "rootfs" },
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), spec.to_string()).unwrap();
    folder.to_owned()
}

#[tokio::test]
async fn oci_executor_driving_reaper_runtime_keeps_contract() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path());
    for rule in RULES {
        // Its pid file names its monitor, which is then listed as a process of the container.
        if rule.name == "created_process_waits_for_start" {
            continue;
        }
        let root = folder.path().join(rule.name);
        fs::create_dir(&root).unwrap();
        let host = HostExecutor::new(StateRoot::new(&root)).monitor_program(PROGRAM);
        let bundle = folder.path().join("bundle");
        let subject = Subject::new(OciExecutor::new(host, &runtime), &root)
            .in_bundles(move |process| write_bundle(&bundle, process));
        rule.check(&subject).await;
        let left: Vec<_> = fs::read_dir(&root).unwrap().collect();
        assert!(left.is_empty(), "{}: left: {left:?}", rule.name);
    }
}
