//! The commands of OCI: create, start, state, kill, delete, and list.

use std::{fs, process::Stdio, thread};

use serde_json::Value;

use crate::rig::{Rig, is_alive, shell};

#[test]
fn the_quick_start_works_as_it_is_written() {
    let rig = Rig::new();
    let bundle = rig.shell("echo hi; echo oops >&2; exit 3");
    rig.ok(&["create", "--bundle", &bundle, "hello"]);
    let state = rig.state("hello");
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle.as_str());
    assert!(
        is_alive(&state["pid"].to_string()),
        "a real pid before the start"
    );

    let (out, err) = (rig.path("out"), rig.path("err"));
    let started = rig
        .command(&["start", "hello"])
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .status()
        .unwrap();
    assert!(started.success());
    assert_eq!(rig.ok(&["wait", "hello"]), "3\n");
    assert_eq!(
        fs::read_to_string(out).unwrap(),
        "hi\n",
        "start's redirection is the program's"
    );
    assert_eq!(fs::read_to_string(err).unwrap(), "oops\n");

    let state = rig.state("hello");
    assert_eq!(
        (&state["status"], &state["exit_code"]),
        (&"stopped".into(), &3.into())
    );
    assert_eq!(state["pid"], 0);
    assert!(
        state["started"].as_str() <= state["finished"].as_str(),
        "{state}"
    );
    rig.ok(&["delete", "hello"]);
    assert_eq!(rig.ok(&["list", "--quiet"]), "");
}

#[test]
fn signals_have_names_and_numbers() {
    let rig = Rig::new();
    for (args, code) in [
        (&["kill", "c"][..], 143),
        (&["kill", "c", "KILL"], 137),
        (&["kill", "c", "SIGUSR1"], 138),
        (&["kill", "c", "1"], 129),
        (&["kill", "--all", "c", "9"], 137),
        (&["kill", "c", "--signal", "15"], 143),
    ] {
        rig.running("c");
        rig.ok(args);
        assert_eq!(rig.ok(&["wait", "c"]), format!("{code}\n"), "{args:?}");
        rig.ok(&["delete", "c"]);
    }
}

#[test]
fn kill_of_stopped_container_succeeds_with_note() {
    let rig = Rig::new();
    rig.detached("c", &["true"]);
    rig.ok(&["wait", "c"]);
    let output = rig.call(&["kill", "c"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("already stopped"));
    assert!(rig.fails(1, &["kill", "other"]).contains("does not exist"));
}

#[test]
fn one_of_twenty_concurrent_creates_of_same_id_succeeds() {
    let rig = Rig::new();
    let bundle = rig.shell("exit 0");
    let outputs: Vec<_> = thread::scope(|scope| {
        let create = || rig.call(&["create", "--bundle", &bundle, "c"]);
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(create)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outputs.iter().partition(|o| o.status.success());
    assert_eq!(won.len(), 1);
    for output in lost {
        assert!(String::from_utf8_lossy(&output.stderr).contains("exists already"));
    }
    assert_eq!(rig.state("c")["status"], "created");
}

#[test]
fn errors_are_one_line_and_name_the_remedy() {
    let rig = Rig::new();
    let bundle = rig.shell("exit 0");
    assert!(
        rig.fails(1, &["state", "c"])
            .contains("`reaper-runtime list`")
    );
    assert!(
        rig.fails(1, &["create", "--bundle", "/nowhere", "c"])
            .contains("/nowhere")
    );
    fs::create_dir(rig.path("empty")).unwrap();
    let empty = rig.path("empty").display().to_string();
    assert!(
        rig.fails(1, &["run", "--bundle", &empty, "c"])
            .contains("reaper-runtime spec")
    );
    rig.ok(&["create", "--bundle", &bundle, "c"]);
    assert!(rig.fails(1, &["delete", "c"]).contains("by force"));
    rig.ok(&["start", "c"]);
    rig.ok(&["wait", "c"]);
    assert!(rig.fails(1, &["start", "c"]).contains("stopped"));
    let usage = rig.call(&["kill"]);
    assert_eq!(usage.status.code(), Some(1), "as runc's");
}

#[test]
fn errors_are_written_to_json_log() {
    let rig = Rig::new();
    let log = rig.path("log.json").display().to_string();
    rig.fails(
        1,
        &["--log", &log, "--log-format", "json", "state", "nobody"],
    );
    let text = fs::read_to_string(&log).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(
        last["msg"]
            .as_str()
            .unwrap()
            .contains("container nobody does not exist"),
        "{last}"
    );
    assert!(last["time"].is_string());
}

#[test]
fn ignored_options_are_accepted_and_logged_with_debug() {
    let rig = Rig::new();
    let bundle = rig.shell("exit 0");
    let args = [
        "--systemd-cgroup",
        "--debug",
        "create",
        "--no-pivot",
        "--bundle",
        &bundle,
        "c",
    ];
    let output = rig.call(&args);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(
        log.contains("--systemd-cgroup") && log.contains("--no-pivot"),
        "{log}"
    );
}

#[test]
fn a_program_that_cannot_be_run_is_named_and_its_container_can_be_deleted() {
    let rig = Rig::new();
    let bundle = rig.bundle("b", &serde_json::json!({"args": ["/bin/nope"]}));
    let created = rig.call(&["create", "--bundle", &bundle, "c"]);
    let error = if created.status.success() {
        let error = rig.fails(1, &["start", "c"]);
        assert_eq!(rig.state("c")["status"], "stopped");
        rig.ok(&["delete", "c"]);
        error
    } else {
        String::from_utf8(created.stderr).unwrap()
    };
    assert!(
        error.contains("/bin/nope") && error.contains("No such file"),
        "{error}"
    );
}

#[test]
fn kill_ends_created_container_before_its_program_runs() {
    let rig = Rig::new();
    let bundle = rig.shell("echo never > ran");
    rig.ok(&["create", "--bundle", &bundle, "c"]);
    rig.ok(&["kill", "c", "KILL"]);
    assert_eq!(rig.ok(&["wait", "c"]), "137\n");
    rig.ok(&["delete", "c"]);
    assert!(!rig.path("bundle/ran").exists());
}

#[test]
fn a_container_that_was_killed_by_force_leaves_nothing() {
    let rig = Rig::new();
    rig.running("c");
    let pid = rig.state("c")["pid"].to_string();
    rig.ok(&["delete", "--force", "c"]);
    assert!(!is_alive(&pid));
    rig.ok(&["delete", "--force", "c"]);
    rig.fails(1, &["delete", "c"]);
}

/// Whether there is a hierarchy that can freeze. With cgroup v1 alone a pause is refused by name.
fn has_cgroup_v2() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(" - cgroup2 ")
}

#[test]
fn paused_container_refuses_exec_until_resumed() {
    let rig = Rig::new();
    rig.running("c");
    if !has_cgroup_v2() {
        let error = rig.fails(1, &["pause", "c"]);
        assert!(error.contains("cgroup of version 2"), "{error}");
        assert_eq!(rig.state("c")["status"], "running");
        return;
    }
    rig.ok(&["pause", "c"]);
    assert_eq!(rig.state("c")["status"], "paused");
    rig.fails(255, &["exec", "c", "true"]);
    rig.ok(&["resume", "c"]);
    assert_eq!(rig.state("c")["status"], "running");
    assert_eq!(rig.call(&["exec", "c", "true"]).status.code(), Some(0));
}

#[test]
fn list_ps_and_events_stats_print_json() {
    let rig = Rig::new();
    assert_eq!(rig.ok(&["list", "--format", "json"]), "[]\n");
    rig.running("one");
    let pid = rig.state("one")["pid"].clone();
    let list: Value = serde_json::from_str(&rig.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["pid"]), (&"one".into(), &pid));
    let pids: Value = serde_json::from_str(&rig.ok(&["ps", "--format", "json", "one"])).unwrap();
    assert_eq!(pids, Value::Array(vec![pid]));
    assert!(rig.ok(&["ps", "one"]).contains("sleep 1000"));
    let stats: Value = serde_json::from_str(&rig.ok(&["events", "--stats", "one"])).unwrap();
    assert_eq!(stats["data"]["pids"]["current"], 1);
}

#[test]
fn namespace_option_selects_state_directory_of_shim() {
    let rig = Rig::new();
    let bundle = rig.shell("exit 0");
    rig.ok(&["--namespace", "k8s.io", "create", "--bundle", &bundle, "c"]);
    assert!(rig.root().join("ns/k8s.io/c/state.json").exists());
    assert_eq!(rig.ok(&["list", "--quiet"]), "");
    assert_eq!(rig.ok(&["--namespace", "k8s.io", "list", "--quiet"]), "c\n");
    rig.ok(&["--namespace", "k8s.io", "delete", "--force", "c"]);
    rig.fails(1, &["--namespace", "../x", "list"]);
    fs::remove_dir_all(rig.root().join("ns")).unwrap();
}

#[test]
fn start_with_bundle_creates_and_starts_container() {
    let rig = Rig::new();
    let bundle = rig.bundle("b", &shell("echo started"));
    let started = rig
        .command(&["start", "c", "--bundle", &bundle])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(started.status.success());
    assert_eq!(started.stdout, b"started\n");
}

#[test]
fn a_list_has_the_columns_and_fields_of_runc() {
    let rig = Rig::new();
    let bundle = rig.shell("exit 0");
    rig.quietly(&["create", "--bundle", &bundle, "c"]);
    rig.running("command");
    let list = rig.ok(&["list"]);
    let head: Vec<_> = list.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        head[..6],
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    let json: Value = serde_json::from_str(&rig.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(json[0]["owner"], "root");
    assert_eq!(json[0]["rootfs"], format!("{bundle}/rootfs"));
    assert_eq!(json[1]["rootfs"], "/");
    for name in json[0].as_object().unwrap() {
        assert!(!name.1.is_null(), "{name:?}");
    }
    assert_eq!(rig.state("c")["rootfs"], format!("{bundle}/rootfs"));
}

#[test]
fn a_bundle_path_with_an_escape_and_a_newline_stays_in_its_row() {
    let rig = Rig::new();
    let bundle = rig.bundle("b\x1b[31m\nforged 1 running", &shell("exit 0"));
    rig.quietly(&["create", "--bundle", &bundle, "c"]);
    let list = rig.ok(&["list"]);
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains("b\\u{1b}[31m\\nforged"), "{list}");
    assert!(!list.contains('\x1b'), "{list:?}");
    let error = rig.fails(1, &["create", "--bundle", &format!("{bundle}x"), "d"]);
    assert!(!error.contains('\x1b'), "{error:?}");
}

#[test]
fn ps_prints_what_its_options_say() {
    let rig = Rig::new();
    rig.running("c");
    let pid = rig.state("c")["pid"].to_string();
    let output = rig.ok(&["ps", "c", "-o", "pid,args"]);
    let lines: Vec<_> = output.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("PID"), "{output}");
    assert_eq!(lines[1..], [format!("{pid} sleep 1000")], "{output}");
    let refused = rig.fails(1, &["ps", "c", "-o", "args"]);
    assert!(refused.contains("no column PID"), "{refused}");
    let refused = rig.fails(1, &["ps", "c", "--no-such-option"]);
    assert!(refused.contains("ps(1)"), "{refused}");
    let refused = rig.fails(1, &["ps", "--format", "json", "c", "-o", "pid"]);
    assert!(refused.contains("--format json"), "{refused}");
}
