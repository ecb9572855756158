//! What the processes of a bundle may do.

use std::fs;

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

const SHOW: &str = "grep ^CapEff /proc/self/status";
/// CAP_KILL.
const KILL: &str = "CapEff:\t0000000000000020\n";

/// A shell that may send signals to any process, and nothing else.
fn killer(script: &str) -> Value {
    let mut process = shell(script);
    let only = json!(["CAP_KILL"]);
    process["capabilities"] = json!({ "bounding": only, "effective": only, "permitted": only });
    process
}

#[test]
fn run_and_exec_have_the_capabilities_of_the_bundle() {
    let rig = Rig::new();
    let bundle = rig.bundle("b", &killer("exec sleep 1000"));
    rig.quietly(&["create", "--bundle", &bundle, "c"]);
    rig.quietly(&["start", "c"]);
    assert_eq!(rig.ok(&["exec", "c", "sh", "-c", SHOW]), KILL);
    assert_eq!(
        rig.ok(&["exec", "--cap", "CAP_CHOWN", "c", "sh", "-c", SHOW]),
        "CapEff:\t0000000000000021\n"
    );
    let process = rig.path("process.json");
    let mut none = shell(SHOW);
    none["capabilities"] = json!({});
    fs::write(&process, none.to_string()).unwrap();
    let process = process.to_str().unwrap();
    assert_eq!(
        rig.ok(&["exec", "--process", process, "c"]),
        "CapEff:\t0000000000000000\n"
    );
    let error = rig.fails(255, &["exec", "--cap", "NET_ADMIN", "c", "true"]);
    assert!(error.contains("write CAP_NAME"), "{error}");
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn exec_has_of_the_container_what_its_process_json_leaves_out() {
    let rig = Rig::new();
    let mut process = killer("exec sleep 1000");
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 78 }]);
    process["user"] = json!({ "uid": 0, "gid": 0, "umask": 0o27 });
    let bundle = rig.bundle("b", &process);
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let file = rig.path("process.json");
    let exec = |process: &Value, options: &[&str]| {
        fs::write(&file, process.to_string()).unwrap();
        let file = ["--process", file.to_str().unwrap(), "c"];
        rig.ok(&[&["exec"], options, &file].concat())
    };
    let mut silent = shell(&format!("{SHOW}; ulimit -n; umask"));
    silent["user"] = json!({ "uid": 0, "gid": 0 });
    assert_eq!(exec(&silent, &[]), format!("{KILL}77\n0027\n"));
    let more = "CapEff:\t0000000000000021\n77\n0027\n";
    assert_eq!(exec(&silent, &["--cap", "CAP_CHOWN"]), more);
    silent["capabilities"] = Value::Null;
    silent["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 79, "hard": 79 }]);
    silent["user"]["umask"] = json!(0o22);
    assert_eq!(exec(&silent, &[]), format!("{KILL}79\n0022\n"));
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn command_of_run_has_the_capabilities_of_its_caller() {
    let rig = Rig::new();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapEff"));
    let seen = rig.ok(&["run", "--", "sh", "-c", SHOW]);
    assert_eq!(seen.lines().next(), own);
}

/// A bundle whose process may send signals to any process, and not make directories.
fn limited(rig: &Rig, script: &str) -> String {
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
    });
    let fields = json!({ "linux": { "seccomp": seccomp } });
    rig.bundle_with("b", &killer(script), &fields)
}

#[test]
fn run_and_exec_have_the_filter_of_the_bundle() {
    let rig = Rig::new();
    let folder = rig.path("new");
    let mkdir = ["mkdir", folder.to_str().unwrap()];
    let bundle = limited(&rig, "exec sleep 1000");
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let exec = |options: &[&str]| {
        let args = [&["exec"], options, &["c"], &mkdir].concat();
        let output = rig.call(&args);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for options in [&[][..], &["--no-new-privs"], &["--user", "65534"]] {
        let said = exec(options);
        assert!(said.contains("Operation not permitted"), "{said}");
    }
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn policy_of_the_node_leaves_a_bundles_process_its_privileges_and_says_so() {
    let rig = Rig::new();
    rig.configure("", "\n[policy]\nprivileges = \"node\"\n");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapEff"));
    let folder = rig.path("new");
    let bundle = limited(&rig, &format!("{SHOW}; mkdir {}", folder.display()));
    let output = rig.call(&["run", "--bundle", &bundle, "c"]);
    let (seen, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}");
    assert_eq!(seen.lines().next(), own);
    assert!(folder.is_dir(), "it may make directories");
    let told = "the capabilities and the seccomp filter of the spec are not applied";
    assert!(said.contains(told), "{said}");
    assert!(said.contains("policy.privileges"), "{said}");
}

#[test]
fn user_namespace_is_refused_by_its_name() {
    let rig = Rig::new();
    let namespaces = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "user" }]);
    let fields = json!({ "linux": { "namespaces": namespaces } });
    let bundle = rig.bundle_with("b", &shell("true"), &fields);
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    assert!(
        error.contains("linux.namespaces: a user namespace"),
        "{error}"
    );
    assert!(error.contains("hostUsers"), "{error}");
}

#[test]
fn a_runtime_path_that_names_the_program_itself_takes_no_refusal_away() {
    let rig = Rig::new();
    let itself = env!("CARGO_BIN_EXE_reaper-runtime");
    rig.configure(&format!("runtime_path = {itself:?}\n"), "");
    let linux = json!({ "linux": { "namespaces": [{ "type": "user" }] } });
    let bundle = rig.bundle_with("b", &shell("true"), &linux);
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    assert!(
        error.contains("linux.namespaces: a user namespace"),
        "{error}"
    );
    let bundle = rig.bundle("b", &shell("echo here"));
    assert_eq!(rig.ok(&["run", "--bundle", &bundle, "c"]), "here\n");
}
