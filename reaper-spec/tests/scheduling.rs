//! `ioPriority`, `scheduler`, `execCPUAffinity`, `personality`, profiles and labels: what is read, and
//! what is refused by its name.

use std::path::Path;

use reaper_spec::{ContainerSpec, IoClass, ProcessSpec, SchedulerFlag, SchedulerPolicy};
use serde_json::{Value, json};

fn parse(process: &Value, linux: &Value) -> Result<ContainerSpec, reaper_spec::Error> {
    let mut spec = json!({ "process": process, "linux": linux });
    spec["process"]["args"] = json!(["true"]);
    ContainerSpec::parse(spec.to_string().as_bytes(), Path::new("/b"))
}

#[test]
fn every_field_is_read_and_survives_a_record() {
    let process = json!({
        "ioPriority": { "class": "IOPRIO_CLASS_IDLE" },
        "scheduler": { "policy": "SCHED_FIFO", "priority": 99,
                       "flags": ["SCHED_FLAG_RESET_ON_FORK"] },
        "execCPUAffinity": { "initial": "7", "final": "0-2, 5" },
        "apparmorProfile": "cri-containerd.apparmor.d",
        "selinuxLabel": "system_u:system_r:container_t:s0",
    });
    let linux = json!({
        "personality": { "domain": "LINUX32" },
        "mountLabel": "system_u:object_r:container_file_t:s0:c1,c2",
    });
    let spec = parse(&process, &linux).unwrap();
    let written = serde_json::to_vec(&spec.process).unwrap();
    let read: ProcessSpec = serde_json::from_slice(&written).unwrap();
    assert_eq!(read, spec.process);
    let scheduling = read.scheduling;
    assert_eq!(scheduling.io_priority.unwrap().class, IoClass::Idle);
    let scheduler = scheduling.scheduler.unwrap();
    assert_eq!(scheduler.policy, SchedulerPolicy::Fifo);
    assert_eq!(scheduler.priority, 99);
    assert_eq!(scheduler.flags, [SchedulerFlag::ResetOnFork]);
    let affinity = scheduling.exec_cpu_affinity.unwrap();
    assert_eq!(
        (affinity.initial, affinity.last),
        (vec![7], vec![0, 1, 2, 5])
    );
    assert_eq!(scheduling.personality, Some(8));
    let profile = read.labels.apparmor_profile;
    assert_eq!(profile.as_deref(), Some("cri-containerd.apparmor.d"));
    let label = read.labels.selinux_label;
    assert_eq!(label.as_deref(), Some("system_u:system_r:container_t:s0"));
    let label = read.labels.mount_label;
    assert_eq!(
        label.as_deref(),
        Some("system_u:object_r:container_file_t:s0:c1,c2")
    );
}

#[test]
fn wrong_values_are_refused_by_their_place() {
    for (process, linux, at) in [
        (
            json!({"ioPriority": {"class": "BEST"}}),
            json!({}),
            "process.ioPriority.class",
        ),
        (
            json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}),
            json!({}),
            "process.ioPriority.priority",
        ),
        (
            json!({"scheduler": {}}),
            json!({}),
            "process.scheduler.policy",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}),
            json!({}),
            "process.scheduler.nice",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_OTHER", "priority": 1}}),
            json!({}),
            "process.scheduler.priority",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_RR", "runtime": 1}}),
            json!({}),
            "process.scheduler.policy",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_RR", "flags": ["RESET"]}}),
            json!({}),
            "process.scheduler.flags[0]",
        ),
        (
            json!({"execCPUAffinity": {"final": "3-1"}}),
            json!({}),
            "process.execCPUAffinity.final",
        ),
        (
            json!({"execCPUAffinity": {"initial": "all"}}),
            json!({}),
            "process.execCPUAffinity.initial",
        ),
        (
            json!({"apparmorProfile": 1}),
            json!({}),
            "process.apparmorProfile",
        ),
        (json!({}), json!({"mountLabel": 5}), "linux.mountLabel"),
        (
            json!({}),
            json!({"personality": {"domain": "BSD"}}),
            "linux.personality.domain",
        ),
        (
            json!({}),
            json!({"personality": {"domain": "LINUX", "flags": ["x"]}}),
            "linux.personality.flags",
        ),
    ] {
        let error = parse(&process, &linux).unwrap_err().to_string();
        let place = format!("/b/config.json: {at}: expected ");
        assert!(error.starts_with(&place), "{at}: {error}");
    }
}
