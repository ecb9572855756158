//! What an upgrade changes for containers that run.

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

/// A container whose spec restricts it in what a process shows, and in more.
fn start_restricted(rig: &Rig, id: &str) {
    let mut process = shell("exec sleep 1000");
    let sets = json!(["CAP_CHOWN"]);
    process["capabilities"] = json!({ "bounding": sets, "effective": sets, "permitted": sets });
    let fields = json!({
        "root": { "path": "/", "readonly": true },
        "linux": {
            "maskedPaths": ["/proc/kcore"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" }],
            },
        },
        "annotations": {
            "io.kubernetes.cri.sandbox-namespace": "jobs",
            "io.kubernetes.cri.sandbox-name": "mpi-0",
            "io.kubernetes.cri.container-name": "rank",
        },
    });
    let bundle = rig.bundle_with(id, &process, &fields);
    rig.quietly(&["create", "--bundle", &bundle, id]);
    rig.quietly(&["start", id]);
}

fn found(rig: &Rig) -> Vec<(String, String)> {
    let findings: Value =
        serde_json::from_str(&rig.ok(&["doctor", "--upgrade", "--json"])).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = findings.as_array().unwrap().iter();
    findings
        .map(|one| (text(one, "level"), text(one, "found")))
        .collect()
}

#[test]
fn doctor_names_the_pods_that_run_without_what_their_spec_says() {
    let rig = Rig::with_overlay();
    let one = |level: &str, found: &str| vec![(level.to_owned(), found.to_owned())];
    assert_eq!(found(&rig), one("good", "no container runs"));

    start_restricted(&rig, "new");
    let fine = "1 running, and what each may do is what its spec says";
    assert_eq!(found(&rig), one("good", fine));
    rig.ok(&["delete", "--force", "new"]);

    // What an earlier version did, this one does where the admin says so.
    rig.configure("", "\n[policy]\nprivileges = \"node\"\n");
    start_restricted(&rig, "old");
    rig.detached("command", &["sleep", "1000"]);
    let without = "jobs/mpi-0/rank (old) runs without what its spec says of: capabilities, seccomp, \
                   read-only and masked files";
    assert_eq!(found(&rig), one("warning", without));
    rig.ok(&["delete", "--force", "old"]);
    rig.ok(&["delete", "--force", "command"]);
}
