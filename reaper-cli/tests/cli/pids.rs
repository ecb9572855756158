//! Which processes a container sees.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::rig::{Rig, code, shell};

/// The numbers of the processes that are seen.
const NUMBERS: &str = "cd /proc && echo [0-9]*";

fn set_private(rig: &Rig) {
    rig.configure("pid = \"private\"\n", "");
}

fn namespace(pid: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/pid")).unwrap().ino()
}

#[test]
fn a_command_sees_the_nodes_processes_unless_the_admin_says_private() {
    let rig = Rig::new();
    let own = std::process::id();
    let look = format!("test -e /proc/{own}/ns && echo seen; echo $$");
    let seen = rig.ok(&["run", "--", "sh", "-c", &look]);
    assert!(seen.starts_with("seen\n") && seen != "seen\n1\n", "{seen}");
    let private = || {
        let mut command = rig.command(&["run", "--", "sh", "-c", &look]);
        command.env("REAPER_PID", "private");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(private(), "1\n");
    let mut wrong = rig.command(&["run", "--", "true"]);
    let wrong = wrong.env("REAPER_PID", "none").output().unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        said.contains("REAPER_PID") && said.contains("host or private"),
        "{said}"
    );
    // A bundle that asks for no pid namespace, a pod with hostPID, has the node's.
    set_private(&rig);
    for (namespaces, expected) in [
        (json!([{ "type": "mount" }]), false),
        (json!([{ "type": "mount" }, { "type": "pid" }]), true),
    ] {
        let fields = json!({ "linux": { "namespaces": namespaces } });
        let bundle = rig.bundle_with("bundle", &shell("echo $$"), &fields);
        let seen = rig.ok(&["run", "--bundle", &bundle, "c"]);
        assert_eq!(seen == "1\n", expected, "{seen}");
    }
}

#[test]
fn what_people_and_engines_do_works_with_a_pid_namespace() {
    for rig in [Rig::new(), Rig::with_overlay()] {
        set_private(&rig);
        let script = "trap 'exit 9' TERM; trap : CHLD; echo ready > $READY; while :; do sleep 1000 & wait; done";
        let ready = rig.path("ready");
        nix::unistd::mkfifo(&ready, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut process = shell(script);
        process["env"] = json!(["PATH=/usr/bin:/bin", format!("READY={}", ready.display())]);
        let fields = json!({
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc",
                  "options": ["nosuid", "noexec", "nodev"] },
                { "destination": ready, "type": "bind", "source": ready, "options": ["bind"] },
            ],
            "root": { "path": "/", "readonly": true },
            "linux": {
                "namespaces": [{ "type": "pid" }, { "type": "mount" }],
                "maskedPaths": ["/proc/timer_list", "/proc/keys"],
                "readonlyPaths": ["/proc/sys"],
            },
        });
        let bundle = rig.bundle_with("bundle", &process, &fields);
        rig.quietly(&["create", "--bundle", &bundle, "c"]);
        rig.quietly(&["start", "c"]);
        assert_eq!(fs::read_to_string(&ready).unwrap(), "ready\n");
        let pid = rig.state("c")["pid"].to_string();
        assert_ne!(namespace(&pid), namespace("self"));
        let seen = rig.ok(&[
            "exec",
            "c",
            "sh",
            "-c",
            "stat -Lc %i /proc/self/ns/pid; cat /proc/1/comm",
        ]);
        assert_eq!(seen, format!("{}\nsh\n", namespace(&pid)));
        let protected =
            "cat /proc/keys; touch /proc/sys/kernel/hostname 2>&1 | grep -o 'Read-only.*'";
        let seen = rig.ok(&["exec", "c", "sh", "-c", protected]);
        assert_eq!(seen, "Read-only file system\n");
        // People see the node's numbers, and enter by them.
        let table = rig.ok(&["ps", "c"]);
        assert!(
            table
                .lines()
                .any(|line| line.split_whitespace().next() == Some(&pid)),
            "{table}"
        );
        let entered = Command::new("nsenter")
            .args([
                "--target",
                &pid,
                "--pid",
                "--mount",
                "sh",
                "-c",
                "cat /proc/1/comm; readlink /proc/self/ns/pid",
            ])
            .output()
            .unwrap();
        let entered = String::from_utf8(entered.stdout).unwrap();
        assert_eq!(entered, format!("sh\npid:[{}]\n", namespace(&pid)));
        let code_of = |args: &[&str]| code(rig.call(args).status);
        assert_eq!(code_of(&["exec", "c", "sh", "-c", "exit 6"]), 6);
        assert_eq!(code_of(&["exec", "c", "sh", "-c", "kill -KILL $$"]), 137);
        rig.ok(&["pause", "c"]);
        assert_eq!(rig.state("c")["status"], "paused");
        rig.ok(&["resume", "c"]);
        rig.ok(&["kill", "c", "TERM"]);
        assert_eq!(rig.ok(&["wait", "c"]), "9\n");
        rig.ok(&["delete", "c"]);
    }
}

#[test]
fn all_is_killed_with_number_1_also_without_a_freezer_and_cgroups() {
    let rig = Rig::new();
    rig.configure("cgroups = \"off\"\npid = \"private\"\n", "");
    rig.detached(
        "c",
        &[
            "sh",
            "-c",
            "setsid sleep 1937 & setsid sh -c 'setsid sleep 1937 &' & exec sleep 1000",
        ],
    );
    let pid = rig.state("c")["pid"].to_string();
    let inside = namespace(&pid);
    // By SIGSTOP, which number 1 gets from outside alone.
    rig.ok(&["pause", "c"]);
    // A process stops when it would run the next time.
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        if stat.rsplit(") ").next().unwrap().starts_with('T') {
            break;
        }
        assert!(Instant::now() < patience, "{stat}");
        std::thread::yield_now();
    }
    rig.ok(&["resume", "c"]);
    rig.ok(&["kill", "--all", "c", "KILL"]);
    assert_eq!(rig.ok(&["wait", "c"]), "137\n");
    let left = fs::read_dir("/proc").unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path().join("ns/pid");
        fs::metadata(path).is_ok_and(|namespace| namespace.ino() == inside)
    });
    assert_eq!(left.count(), 0);
    rig.ok(&["delete", "c"]);
}

#[test]
fn a_pid_namespace_of_a_bundle_is_joined_by_its_path() {
    let rig = Rig::new();
    let mut first = rig.command(&["run", "--detach", "--name", "first", "--", "sleep", "1000"]);
    let first = first
        .env("REAPER_PID", "private")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(first.unwrap().success());
    let pid = rig.state("first")["pid"].to_string();
    let fields = json!({ "linux": { "namespaces": [
        { "type": "pid", "path": format!("/proc/{pid}/ns/pid") },
    ] } });
    let bundle = rig.bundle_with("bundle", &shell(NUMBERS), &fields);
    assert_eq!(rig.ok(&["run", "--bundle", &bundle, "second"]), "1 2\n");
    rig.ok(&["delete", "--force", "first"]);
}

#[test]
fn hooks_of_the_container_have_its_pids_and_those_of_the_runtime_the_nodes() {
    let rig = Rig::new();
    set_private(&rig);
    let out = rig.path("out");
    let hook = |name: &str| {
        let line = format!(
            "sed 's/.*\"pid\":\\([0-9]*\\).*/{name} \\1/' >> {0}; echo >> {0}",
            out.display()
        );
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", line] }])
    };
    let fields = json!({
        "hooks": {
            "createRuntime": hook("runtime"), "createContainer": hook("create"),
            "startContainer": hook("start"),
        },
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }] },
    });
    let bundle = rig.bundle_with("bundle", &shell("exec sleep 1000"), &fields);
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let pid = rig.state("c")["pid"].to_string();
    let seen = fs::read_to_string(&out).unwrap();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(
        lines,
        [
            format!("runtime {pid}"),
            "create 1".into(),
            "start 1".into()
        ]
    );
    rig.ok(&["delete", "--force", "c"]);
}
