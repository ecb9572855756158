//! Which devices a container's processes may open.

use std::{fs, process::Output};

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

/// Where the rules hold: as this machine has it, and, where that is version 1, with version 2 in
/// the place of its controller.
const WAYS: [&str; 2] = [
    "true",
    "for dir in /sys/fs/cgroup/devices*; do ! test -d $dir || mount -t cgroup2 none $dir || exit 1; done",
];
const NO_CGROUPS: &str = "mount -t tmpfs none /sys/fs/cgroup";

/// Device nodes of a test's own, which stand for those of `/dev`.
const NODES: &str = "mknod zero c 1 5; mknod full c 1 7; mknod kmsg c 1 11; mknod fuse c 10 229; \
    mknod tun c 10 200; mknod pts c 136 0; mknod ptmx c 5 2; mknod loop6 b 7 6; mknod loop7 b 7 7; ";

/// Says which of them can be opened to be read and to be written to. What is not there is no matter:
/// only `EPERM` is the rules' answer.
const OPEN: &str = "for name in *; do \
    for how in 'r <' 'w >'; do \
    case \"$(eval \": ${how#* } $name\" 2>&1)\" in \
    *'not permitted'*) ;; *) printf '%s ' $name:${how% *};; esac; done; done; echo; ";

/// All of them.
const ALL: &str = "full:r full:w fuse:r fuse:w kmsg:r kmsg:w loop6:r loop6:w loop7:r loop7:w \
    ptmx:r ptmx:w pts:r pts:w tun:r tun:w zero:r zero:w ";
/// Those that each container may open.
const DEFAULT: &str = "full:r full:w ptmx:r ptmx:w pts:r pts:w zero:r zero:w ";

struct Nodes {
    rig: Rig,
    folder: String,
}

impl Nodes {
    fn new() -> Self {
        let rig = Rig::new();
        let folder = rig.path("nodes");
        fs::create_dir(&folder).unwrap();
        let made = std::process::Command::new("sh")
            .args(["-ec", NODES])
            .current_dir(&folder)
            .status();
        assert!(made.unwrap().success());
        let folder = folder.to_str().unwrap().to_owned();
        Self { rig, folder }
    }

    /// A bundle with these rules that runs a script where the nodes are.
    fn bundle(&self, script: &str, rules: &Value) -> String {
        let fields = json!({ "linux": { "resources": { "devices": rules } } });
        let process = shell(&format!("cd {}; {script}", self.folder));
        self.rig.bundle_with("bundle", &process, &fields)
    }

    fn run(&self, place: &str, script: &str, rules: &Value) -> Output {
        let bundle = self.bundle(script, rules);
        let args = ["run", "--bundle", &bundle, "c"];
        self.rig.command_where(place, &args).output().unwrap()
    }

    /// What a container with these rules can open.
    fn opened(&self, place: &str, rules: &Value) -> String {
        let output = self.run(place, OPEN, rules);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}, {rules}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Denied by default, as engines write it.
fn deny_but(allowed: &[Value]) -> Value {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend_from_slice(allowed);
    rules.into()
}

fn allow(kind: char, major: u32, minor: Option<u32>, access: &str) -> Value {
    json!({"allow": true, "type": kind.to_string(), "major": major, "minor": minor, "access": access})
}

#[test]
fn devices_that_the_rules_do_not_allow_cannot_be_opened() {
    let nodes = Nodes::new();
    for place in WAYS {
        assert_eq!(nodes.opened(place, &deny_but(&[])), format!("{DEFAULT}\n"));
        let some = deny_but(&[
            allow('c', 10, Some(229), "rw"),
            allow('b', 7, None, "r"),
            allow('c', 1, Some(11), "w"),
        ]);
        let expected = "full:r full:w fuse:r fuse:w kmsg:w loop6:r loop7:r ptmx:r ptmx:w pts:r pts:w \
            zero:r zero:w \n";
        assert_eq!(nodes.opened(place, &some), expected, "{place}");
        // Of those about a device the last one decides.
        let all_but = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "a"},
            {"allow": false, "type": "b", "major": 7, "access": "w"},
        ]);
        let expected = ALL.replace("loop6:w ", "").replace("loop7:w ", "");
        assert_eq!(nodes.opened(place, &all_but), format!("{expected}\n"));
    }
}

#[test]
fn rules_that_allow_all_and_no_rules_forbid_nothing() {
    let nodes = Nodes::new();
    for place in WAYS {
        for rules in [
            json!([]),
            json!([{"allow": true, "access": "rwm"}]),
            json!([{"allow": false}, {"allow": true, "type": "a"}]),
        ] {
            assert_eq!(nodes.opened(place, &rules), format!("{ALL}\n"), "{rules}");
        }
    }
}

#[test]
fn nodes_of_any_device_can_be_made_and_not_opened() {
    let nodes = Nodes::new();
    for place in WAYS {
        let script = "rm loop7 kmsg; mknod loop7 b 7 7 && mknod kmsg c 1 11 && ";
        let output = nodes.run(place, &format!("{script}{OPEN}"), &deny_but(&[]));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{DEFAULT}\n"),
            "{error}"
        );
    }
}

#[test]
fn rules_hold_for_exec_and_update_leaves_them() {
    let nodes = Nodes::new();
    for place in WAYS {
        let rig = &nodes.rig;
        let bundle = nodes.bundle("exec sleep 1000", &deny_but(&[]));
        let run = ["run", "--detach", "--bundle", &bundle, "c"];
        let mut run = rig.command_where(place, &run);
        run.stdout(std::process::Stdio::null());
        run.stderr(std::process::Stdio::null());
        assert!(run.status().unwrap().success());
        let script = format!("cd {}; {OPEN}", nodes.folder);
        let opened = || rig.ok(&["exec", "c", "sh", "-c", &script]);
        assert_eq!(opened(), format!("{DEFAULT}\n"), "{place}");
        let update = rig.path("update.json");
        let all = json!({"devices": [{"allow": true, "access": "rwm"}]});
        fs::write(&update, all.to_string()).unwrap();
        rig.ok(&["update", "-r", update.to_str().unwrap(), "c"]);
        assert_eq!(opened(), format!("{DEFAULT}\n"), "{place}");
        rig.ok(&["delete", "--force", "c"]);
    }
}

#[test]
fn rules_do_not_stay_in_a_cgroup_that_does() {
    let nodes = Nodes::new();
    let name = format!("reaper-test-devices-{}", std::process::id());
    // The tree of version 2, or all that are mounted below.
    let roots = "test -e /sys/fs/cgroup/cgroup.procs && set /sys/fs/cgroup || set /sys/fs/cgroup/*; \
        for root in \"$@\"; do if test -e $root/cgroup.procs; then";
    let admins = |command: &str| {
        let script = format!("{roots} {command} $root/{name} || exit 1; fi; done");
        let done = std::process::Command::new("sh")
            .args(["-c", &script])
            .status();
        assert!(done.unwrap().success(), "{command}");
    };
    for place in WAYS {
        admins("mkdir");
        for (rules, expected) in [
            (deny_but(&[]), DEFAULT),
            (json!([]), ALL),
            (
                deny_but(&[allow('c', 10, Some(229), "rw")]),
                "full:r full:w fuse:r fuse:w ",
            ),
        ] {
            let fields = json!({ "linux": {
                "cgroupsPath": format!("/{name}"), "resources": { "devices": rules },
            }});
            let process = shell(&format!("cd {}; {OPEN}", nodes.folder));
            let bundle = nodes.rig.bundle_with("bundle", &process, &fields);
            let args = ["run", "--bundle", &bundle, "c"];
            let output = nodes.rig.command_where(place, &args).output().unwrap();
            let opened = String::from_utf8_lossy(&output.stdout);
            assert!(
                opened.starts_with(expected),
                "{place}, {rules}: {opened}, {output:?}"
            );
        }
        admins("rmdir");
    }
}

#[test]
fn an_engines_rules_are_a_line_in_the_log_where_nothing_can_hold_them() {
    let nodes = Nodes::new();
    let log = nodes.rig.path("log");
    let place = format!(
        "{NO_CGROUPS} && export REAPER_RUNTIME_LOG={}",
        log.display()
    );
    // What ctr writes into each.
    let usual = deny_but(&[
        allow('c', 1, Some(3), "rwm"),
        allow('c', 5, Some(1), "rwm"),
        allow('c', 136, None, "rwm"),
    ]);
    assert_eq!(nodes.opened(&place, &usual), format!("{ALL}\n"));
    let lines = fs::read_to_string(&log).unwrap();
    let told = lines.lines().filter(|line| line.contains("device rules"));
    assert_eq!(told.count(), 1, "{lines}");

    let asked = deny_but(&[allow('c', 10, Some(229), "rwm")]);
    let output = nodes.run(&place, OPEN, &asked);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(
        error.contains("cannot set linux.resources.devices"),
        "{error}"
    );
}

#[test]
fn rules_are_a_line_in_the_log_where_limits_are_not_set() {
    let nodes = Nodes::new();
    let asked = deny_but(&[allow('c', 10, Some(229), "rwm")]);
    for mode in ["track", "off"] {
        let log = nodes.rig.path(mode);
        let place = format!(
            "export REAPER_CGROUPS={mode} REAPER_RUNTIME_LOG={}",
            log.display()
        );
        assert_eq!(nodes.opened(&place, &asked), format!("{ALL}\n"));
        let lines = fs::read_to_string(&log).unwrap();
        let told = format!("device rules are not set: cgroups is {mode:?}");
        assert_eq!(lines.matches(&told).count(), 1, "{lines}");
    }
}

#[test]
fn the_nodes_admin_lets_containers_open_what_their_users_may() {
    let nodes = Nodes::new();
    nodes.rig.configure("devices = \"node\"\n", "");
    let output = nodes.run("true", OPEN, &deny_but(&[]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, format!("{ALL}\n").into_bytes(), "{said}");
    let told = "the device rules of the spec are not applied: devices is ";
    assert!(said.contains(told), "{said}");
}

#[test]
fn features_and_doctor_say_by_what_rules_hold() {
    let rig = Rig::new();
    let call = |place: &str, args: &[&str]| {
        let output = rig.command_where(place, args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let has_v1 = fs::exists("/sys/fs/cgroup/devices").unwrap();
    let hold = [if has_v1 { "cgroup v1" } else { "bpf" }, "bpf"];
    let doctor = |place| call(place, &["doctor", "--no-trial"]);
    for (place, by) in WAYS.into_iter().zip(hold) {
        let features: Value = serde_json::from_str(&call(place, &["features"])).unwrap();
        assert_eq!(features["annotations"]["reaper.runtime.devices"], by);
        let found = doctor(place);
        assert!(found.contains("rules hold by"), "{found}");
    }
    let features: Value = serde_json::from_str(&call(NO_CGROUPS, &["features"])).unwrap();
    assert_eq!(features["annotations"]["reaper.runtime.devices"], "none");
    assert!(doctor(NO_CGROUPS).contains("rules for devices do not hold"));
}
