//! Limits, where cgroups cannot be made.

use std::{
    fs,
    process::{Command, Output},
};

use reaper_exec::cgroup::Hierarchies;
use serde_json::{Value, json};

use crate::rig::{Rig, shell};

fn call(rig: &Rig, prepare: &str, args: &[&str]) -> Output {
    rig.command_where(prepare, args).output().unwrap()
}

const NONE: &str = "mount -t tmpfs none /sys/fs/cgroup";
const READ_ONLY: &str = "for dir in /sys/fs/cgroup /sys/fs/cgroup/*/; do \
    case \" $(stat -f -c %T $dir) \" in *cgroup*) mount --bind $dir $dir && \
    mount -o remount,bind,ro $dir || exit 1;; esac; done";

fn limited(rig: &Rig, resources: Value) -> String {
    let fields = json!({ "linux": { "resources": resources } });
    rig.bundle_with("limited", &shell("echo ran"), &fields)
}

#[test]
fn a_bundle_without_limits_runs_where_no_cgroup_can_be_made() {
    let rig = Rig::new();
    // What the kubelet and runc's `spec` write into each is no limit.
    let engines = json!({"cpu": {"shares": 2}, "devices": [{"allow": false, "access": "rwm"}]});
    let bundle = limited(&rig, engines);
    for (index, place) in [NONE, READ_ONLY].into_iter().enumerate() {
        let log = rig.path(&format!("log-{index}"));
        let place = format!("{place} && export REAPER_RUNTIME_LOG={}", log.display());
        let output = call(&rig, &place, &["run", "-b", &bundle, "free"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"ran\n", "{place}: {error}");
        let lines = fs::read_to_string(log).unwrap_or_default();
        assert_eq!(lines.matches("a cgroup is missing").count(), 1, "{lines}");
    }
}

#[test]
fn a_limit_is_refused_where_no_cgroup_can_be_made() {
    let rig = Rig::new();
    let bundle = limited(&rig, json!({"memory": {"limit": 52_428_800}}));
    for place in [NONE, READ_ONLY] {
        let output = call(&rig, place, &["run", "-b", &bundle, "limited"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{place}"
        );
        assert!(
            error.contains("cannot set linux.resources.memory.limit"),
            "{place}: {error}"
        );
    }
}

#[test]
fn cgroups_that_are_tracked_or_off_set_no_limits() {
    let rig = Rig::new();
    let bundle = limited(&rig, json!({"memory": {"limit": 52_428_800}}));
    for mode in ["track", "off"] {
        let place = format!("{NONE} && export REAPER_CGROUPS={mode}");
        let output = call(&rig, &place, &["run", "-b", &bundle, "limited"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"ran\n", "{mode}: {error}");
    }
}

#[test]
fn update_takes_flags_and_the_json_of_a_file_or_of_the_standard_input() {
    let rig = Rig::new();
    let bundle = rig.bundle("bundle", &shell("exec sleep 1000"));
    rig.ok(&["create", "--bundle", &bundle, "web"]);
    let limit = || rig.pids_limit("web");
    if limit().is_none() && !fs::exists("/sys/fs/cgroup/pids").unwrap() {
        eprintln!("not tried: no hierarchy has the controller pids");
        rig.ok(&["delete", "--force", "web"]);
        return;
    }
    rig.ok(&["update", "--pids-limit", "100", "--memory", "512m", "web"]);
    assert_eq!(limit(), Some(100));
    let file = rig.path("limits.json");
    fs::write(&file, r#"{"pids": {"limit": 200}}"#).unwrap();
    let file = file.to_str().unwrap();
    rig.ok(&["update", "-r", file, "web"]);
    assert_eq!(limit(), Some(200));
    let output = rig
        .command(&["update", "--resources", "-", "web"])
        .stdin(fs::File::open(file).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // A flag wins over the file.
    rig.ok(&["update", "-r", file, "--pids-limit", "300", "web"]);
    assert_eq!(limit(), Some(300));

    let error = rig.fails(1, &["update", "--cpuset-cpus", "99999", "web"]);
    assert!(error.contains("linux.resources.cpu.cpus"), "{error}");
    fs::write(file, r#"{"pids": {"limit": "many"}}"#).unwrap();
    let error = rig.fails(1, &["update", "-r", file, "web"]);
    assert!(
        error.contains("resources.pids.limit: expected i64"),
        "{error}"
    );
    let error = rig.fails(1, &["update", "--pids-limit", "1", "nosuch"]);
    assert!(error.contains("nosuch"), "{error}");
    rig.ok(&["delete", "--force", "web"]);
}

/// Runs a command, which must succeed.
fn system(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_limit_in_a_scope_of_systemd_survives_its_reload() {
    if !fs::exists("/run/systemd/private").unwrap() {
        eprintln!("not tried: systemd does not run here");
        return;
    }
    let rig = Rig::new();
    let name = format!("test{}", std::process::id());
    let (unit, slice) = (
        format!("reaper-{name}.scope"),
        format!("reaper{name}.slice"),
    );
    let fields = json!({ "linux": {
        "cgroupsPath": format!("{slice}:reaper:{name}"),
        "resources": {"pids": {"limit": 50}},
    }});
    let bundle = rig.bundle_with("scope", &shell("exec sleep 1000"), &fields);
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "web"]);
    let shown = system(
        "systemctl",
        &["show", &unit, "-p", "Delegate,Slice,ActiveState"],
    );
    for line in [
        "Delegate=yes",
        &format!("Slice={slice}"),
        "ActiveState=active",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let limit = || rig.pids_limit("web");
    assert_eq!(limit(), Some(50));
    system("systemctl", &["daemon-reload"]);
    // systemd looks at all controllers below the slice.
    system("systemd-run", &["--wait", "--slice", &slice, "true"]);
    assert_eq!(limit(), Some(50));
    // Its name is taken as long as it runs.
    let again = rig.fails(1, &["create", "--bundle", &bundle, "again"]);
    assert!(again.contains(&unit), "{again}");
    rig.ok(&["delete", "--force", "web"]);
    // systemd removes it when the kernel says that it is empty.
    while system("systemctl", &["show", &unit, "-p", "ActiveState"]).contains("=active") {
        std::thread::yield_now();
    }
}

#[test]
fn a_scope_of_systemd_is_a_folder_where_systemd_does_not_run() {
    let rig = Rig::new();
    let name = format!("test{}", std::process::id());
    let fields = json!({ "linux": {
        "cgroupsPath": format!("reaper{name}-pod.slice:reaper:{name}"),
    }});
    let bundle = rig.bundle_with("scope", &shell("cat /proc/self/cgroup"), &fields);
    let hidden = "if test -e /run/systemd; then mount -t tmpfs none /run/systemd; fi";
    let output = call(&rig, hidden, &["run", "-b", &bundle, "web"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let Hierarchies { v1, v2, .. } = Hierarchies::find().unwrap();
    let slice = format!("reaper{name}.slice");
    let folder = format!("/{slice}/reaper{name}-pod.slice/reaper-{name}.scope");
    let expected = v1.len() + usize::from(v2.is_some());
    assert_eq!(said.matches(&folder).count(), expected, "{said}");
    let v1 = v1.iter().map(|v1| v1.root());
    for root in v1.chain(v2.iter().map(|v2| v2.root())) {
        assert!(!root.join(&slice).exists(), "{}", root.display());
    }
}

#[test]
fn what_is_written_to_an_overlay_on_a_tmpfs_is_memory_of_its_writer() {
    let rig = Rig::with_overlay();
    let script = "head -c 100000000 /dev/zero >/root/fill; echo $?";
    for (limit, expected) in [(30 << 20, "137\n"), (400 << 20, "0\n")] {
        let fields = json!({ "linux": { "resources": { "memory": { "limit": limit } } } });
        let bundle = rig.bundle_with("writer", &shell(script), &fields);
        let output = rig.call(&["run", "-b", &bundle, "writer"]);
        let said = String::from_utf8_lossy(&output.stdout);
        // The kernel may take the shell too.
        let is_killed = expected == "137\n" && output.status.code() == Some(137);
        assert!(said == expected || is_killed, "{limit}: {output:?}");
        rig.ok(&["overlay", "reset", "node"]);
    }
}
