//! `linux.seccomp`: what is read, and what is refused by its name.

use std::path::{Path, PathBuf};

use reaper_spec::{
    ContainerSpec, SeccompAction, SeccompArch, SeccompArg, SeccompFlag, SeccompOp, SeccompRule,
};
use serde_json::{Value, json};

fn parse(seccomp: &Value) -> Result<ContainerSpec, reaper_spec::Error> {
    let spec = json!({ "process": { "args": ["true"] }, "linux": { "seccomp": seccomp } });
    ContainerSpec::parse(spec.to_string().as_bytes(), Path::new("/b"))
}

#[test]
fn every_part_of_a_filter_is_read() {
    let document = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/run/agent",
        "listenerMetadata": "mine",
        "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["clone", "mount"], "action": "SCMP_ACT_NOTIFY", "args": [
                { "index": 5, "value": 18_446_744_073_709_551_615_u64, "valueTwo": 7,
                  "op": "SCMP_CMP_MASKED_EQ" },
            ] },
        ],
    });
    let spec = parse(&document).unwrap();
    let written = serde_json::to_vec(&spec).unwrap();
    assert_eq!(
        serde_json::from_slice::<ContainerSpec>(&written).unwrap(),
        spec
    );
    let seccomp = spec.seccomp.unwrap();
    assert_eq!(seccomp.default_action, SeccompAction::Errno(38));
    assert_eq!(
        seccomp.architectures,
        [SeccompArch::X86_64, SeccompArch::X32]
    );
    assert_eq!(
        seccomp.flags,
        [SeccompFlag::Log, SeccompFlag::WaitKillableRecv]
    );
    assert_eq!(seccomp.listener_path, Some(PathBuf::from("/run/agent")));
    assert_eq!(seccomp.listener_metadata.as_deref(), Some("mine"));
    let second = SeccompRule {
        names: vec!["clone".to_owned(), "mount".to_owned()],
        action: SeccompAction::Notify,
        args: vec![SeccompArg {
            index: 5,
            value: u64::MAX,
            value_two: 7,
            op: SeccompOp::MaskedEqual,
        }],
    };
    assert_eq!(seccomp.rules[1], second);
}

#[test]
fn every_action_is_read_and_those_with_an_errno_have_one() {
    for (name, action) in [
        ("SCMP_ACT_KILL", SeccompAction::KillThread),
        ("SCMP_ACT_KILL_THREAD", SeccompAction::KillThread),
        ("SCMP_ACT_KILL_PROCESS", SeccompAction::KillProcess),
        ("SCMP_ACT_TRAP", SeccompAction::Trap),
        ("SCMP_ACT_ERRNO", SeccompAction::Errno(1)),
        ("SCMP_ACT_TRACE", SeccompAction::Trace(1)),
        ("SCMP_ACT_ALLOW", SeccompAction::Allow),
        ("SCMP_ACT_LOG", SeccompAction::Log),
    ] {
        let seccomp = parse(&json!({ "defaultAction": name })).unwrap().seccomp;
        assert_eq!(seccomp.unwrap().default_action, action);
    }
}

#[test]
fn wrong_values_are_refused_by_their_place() {
    let with = |key: &str, value: Value| {
        let mut document = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ERRNO",
                           "args": [{ "index": 0, "op": "SCMP_CMP_EQ" }] }],
        });
        match document.pointer_mut(key) {
            Some(there) => *there = value,
            None => {
                let (parent, name) = key.rsplit_once('/').unwrap();
                document.pointer_mut(parent).unwrap()[name] = value;
            }
        }
        document
    };
    for (key, value, at) in [
        ("/defaultAction", json!(null), "defaultAction"),
        ("/defaultAction", json!("SCMP_ACT_FORBID"), "defaultAction"),
        ("/defaultAction", json!("SCMP_ACT_NOTIFY"), "defaultAction"),
        ("/defaultErrnoRet", json!(1), "defaultErrnoRet"),
        (
            "/architectures",
            json!(["SCMP_ARCH_Z80"]),
            "architectures[0]",
        ),
        ("/flags", json!(["SECCOMP_FILTER_FLAG_NEW"]), "flags[0]"),
        ("/listenerPath", json!("agent"), "listenerPath"),
        ("/listenerMetadata", json!("x"), "listenerPath"),
        ("/syscalls/0", json!("read"), "syscalls[0]"),
        ("/syscalls/0/names", json!([]), "syscalls[0].names"),
        ("/syscalls/0/names", json!([1]), "syscalls[0].names[0]"),
        ("/syscalls/0/action", json!("ALLOW"), "syscalls[0].action"),
        (
            "/syscalls/0/action",
            json!("SCMP_ACT_NOTIFY"),
            "listenerPath",
        ),
        ("/syscalls/0/errnoRet", json!(4096), "syscalls[0].errnoRet"),
        (
            "/syscalls/0/args/0/index",
            json!(6),
            "syscalls[0].args[0].index",
        ),
        (
            "/syscalls/0/args/0/op",
            json!("=="),
            "syscalls[0].args[0].op",
        ),
        (
            "/syscalls/0/args/0/value",
            json!(-1),
            "syscalls[0].args[0].value",
        ),
    ] {
        let error = parse(&with(key, value)).unwrap_err().to_string();
        let place = format!("/b/config.json: linux.seccomp.{at}: expected ");
        assert!(error.starts_with(&place), "{key}: {error}");
    }
    let mut write = with("/syscalls/0/action", json!("SCMP_ACT_NOTIFY"));
    write["syscalls"][0]["names"] = json!(["read", "write"]);
    write["listenerPath"] = json!("/run/agent");
    let error = parse(&write).unwrap_err().to_string();
    assert!(error.contains("no write with SCMP_ACT_NOTIFY"), "{error}");
}
