//! How a process is scheduled, and what confines it: what its spec says, or a refusal.

use reaper_exec::{ContainerConfig, Executor};
use reaper_spec::{ContainerSpec, ProcessSpec};
use serde_json::{Value, json};

use crate::{
    output::{Output, capture},
    rig::{Rig, cases},
};

cases! {
    process_is_scheduled_as_its_spec_says,
    exec_has_processors_of_its_own_and_the_personality_of_the_container,
    exec_is_scheduled_as_its_container_where_its_spec_is_silent,
    scheduling_that_the_kernel_refuses_fails_the_creation_by_its_name,
    profile_and_label_that_the_node_does_not_have_fail_the_creation,
}

/// A process that runs this script, with these fields of its spec and of `linux`.
fn process(rig: &Rig, script: &str, fields: &Value, linux: &Value) -> ProcessSpec {
    let mut spec = json!({ "process": fields, "linux": linux });
    let usual = rig.process(&["/bin/sh", "-c", script]);
    spec["process"]["args"] = json!(usual.args);
    spec["process"]["env"] = json!(usual.env);
    let spec = ContainerSpec::parse(spec.to_string().as_bytes(), "/".as_ref());
    spec.unwrap().process
}

fn container(rig: &Rig, process: ProcessSpec) -> (ContainerConfig, Output) {
    let (stdio, output) = capture();
    (rig.container("scheduled", process, stdio), output)
}

async fn process_is_scheduled_as_its_spec_says(rig: &Rig) {
    let fields = json!({
        "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
        "scheduler": { "policy": "SCHED_BATCH", "nice": 7 },
        // It is about execs alone.
        "execCPUAffinity": { "initial": "0", "final": "0" },
    });
    let linux = json!({ "personality": { "domain": "LINUX32" } });
    let script = "ionice; chrt -p $$ | head -n 1 | grep -o 'SCHED_.*'; nice; \
                  cat /proc/self/personality";
    let (new, output) = container(rig, process(rig, script, &fields, &linux));
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
    let seen = output.all();
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some("best-effort: prio 6"), "{seen}");
    assert_eq!(lines.next(), Some("SCHED_BATCH"), "{seen}");
    assert_eq!(lines.next(), Some("7"), "{seen}");
    assert_eq!(lines.next_back(), Some("00000008"), "{seen}");
}

async fn exec_has_processors_of_its_own_and_the_personality_of_the_container(rig: &Rig) {
    let linux = json!({ "personality": { "domain": "LINUX32" } });
    let resting = process(rig, "exec sleep 1000", &json!({}), &linux);
    let (new, _output) = container(rig, resting);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();

    let script = "grep Cpus_allowed_list /proc/self/status; cat /proc/self/personality";
    let fields = json!({ "execCPUAffinity": { "final": "0" } });
    let process = process(rig, script, &fields, &json!({}));
    let (_, target, output) = rig.exec_process(&id, "show", process).await;
    rig.engine.executor().wait(&target).await.unwrap();
    rig.engine.delete(&id, true).await.unwrap();
    assert_eq!(output.all(), "Cpus_allowed_list:\t0\n00000008\n");
}

async fn exec_is_scheduled_as_its_container_where_its_spec_is_silent(rig: &Rig) {
    let fields = json!({
        "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
        "scheduler": { "policy": "SCHED_BATCH", "nice": 7 },
        "execCPUAffinity": { "final": "0" },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }],
    });
    let resting = process(rig, "exec sleep 1000", &fields, &json!({}));
    let (new, _output) = container(rig, resting);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();

    let script = "ionice; chrt -p $$ | head -n 1 | grep -o 'SCHED_.*'; nice; ulimit -n; \
                  grep Cpus_allowed_list /proc/self/status";
    let shown = async |name, fields| {
        let process = process(rig, script, &fields, &json!({}));
        let (_, target, output) = rig.exec_process(&id, name, process).await;
        rig.engine.executor().wait(&target).await.unwrap();
        output.all()
    };
    assert_eq!(
        shown("silent", json!({})).await,
        "best-effort: prio 6\nSCHED_BATCH\n7\n77\nCpus_allowed_list:\t0\n"
    );
    let other = json!({ "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 5 } });
    let other = shown("other", other).await;
    assert!(
        other.starts_with("best-effort: prio 5\nSCHED_BATCH"),
        "{other}"
    );
    rig.engine.delete(&id, true).await.unwrap();
}

/// Why the container cannot be created.
async fn refusal(rig: &Rig, fields: &Value) -> String {
    let (new, _output) = container(rig, process(rig, "true", fields, &json!({})));
    rig.engine.create(new).await.unwrap_err().to_string()
}

async fn scheduling_that_the_kernel_refuses_fails_the_creation_by_its_name(rig: &Rig) {
    let no_times = json!({ "scheduler": { "policy": "SCHED_DEADLINE" } });
    let error = refusal(rig, &no_times).await;
    assert!(
        error.contains("set the scheduler SCHED_DEADLINE"),
        "{error}"
    );
}

async fn profile_and_label_that_the_node_does_not_have_fail_the_creation(rig: &Rig) {
    let profile = json!({ "apparmorProfile": "reaper-test-none" });
    let error = refusal(rig, &profile).await;
    assert!(
        error.contains("AppArmor profile reaper-test-none"),
        "{error}"
    );
    let label = json!({ "selinuxLabel": "reaper-test-none" });
    let error = refusal(rig, &label).await;
    assert!(error.contains("SELinux label reaper-test-none"), "{error}");
}
