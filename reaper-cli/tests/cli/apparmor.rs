//! AppArmor's profiles, where the kernel has it, as Debian's have; elsewhere that they are refused.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    hooks::hook,
    rig::{Rig, shell},
};

/// What a profile of the tests denies its processes.
const DENIED: &str = "/etc/hostname";

const SHOW: &str = "cat /proc/self/attr/current; cat /etc/hostname || echo denied";

fn is_enabled() -> bool {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// A profile that the kernel has for as long as this.
struct Profile {
    file: tempfile::NamedTempFile,
    name: String,
}

impl Profile {
    /// One by which all is allowed but `DENIED`.
    fn load(name: &str) -> Self {
        let name = format!("reaper-test-{name}-{}", std::process::id());
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  \
             network,\n  unix,\n  signal,\n  ptrace,\n  mount,\n  deny {DENIED} rwklx,\n}}\n"
        );
        fs::write(file.path(), text).unwrap();
        let profile = Self { file, name };
        let loaded = profile.parser("--replace");
        assert!(loaded.status.success(), "{loaded:?}");
        profile
    }

    fn parser(&self, change: &str) -> Output {
        let mut parser = Command::new("apparmor_parser");
        parser.args([change, "--skip-cache"]).arg(self.file.path());
        parser.output().expect("AppArmor's parser")
    }

    /// What a process shows that has it.
    fn shown(&self) -> String {
        format!("{} (enforce)\ndenied\n", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

/// A process that this profile confines.
fn confined(script: &str, profile: &str) -> Value {
    let mut process = shell(script);
    process["apparmorProfile"] = json!(profile);
    process
}

/// What a process shows that no profile confines.
fn unconfined() -> String {
    let hostname = fs::read_to_string(DENIED).unwrap();
    format!("unconfined\n{hostname}")
}

/// Where the kernel has no AppArmor: a container and a process that ask for it are refused by its name.
fn is_refused(rig: &Rig) {
    let bundle = rig.bundle("b", &confined("true", "reaper-test"));
    let reason = "set the AppArmor profile reaper-test: AppArmor is not enabled on this node";
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    assert!(error.contains(reason), "{error}");
    let bundle = rig.bundle("b", &confined("exec sleep 1000", "unconfined"));
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let error = rig.fails(255, &["exec", "--apparmor", "reaper-test", "c", "true"]);
    assert!(error.contains(reason), "{error}");
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn init_and_exec_are_confined_by_the_profile_of_the_bundle() {
    let rig = Rig::with_overlay();
    if !is_enabled() {
        return is_refused(&rig);
    }
    let (profile, other) = (Profile::load("bundle"), Profile::load("exec"));
    for no_new_privileges in [false, true] {
        let mut process = confined("exec sleep 1000", &profile.name);
        process["noNewPrivileges"] = json!(no_new_privileges);
        let bundle = rig.bundle("b", &process);
        rig.quietly(&["create", "--bundle", &bundle, "c"]);
        rig.quietly(&["start", "c"]);
        let current = format!("/proc/{}/attr/current", rig.state("c")["pid"]);
        let current = fs::read_to_string(current).unwrap();
        assert_eq!(current, format!("{} (enforce)\n", profile.name));
        let exec = |options: &[&str]| {
            let privileges: &[&str] = match no_new_privileges {
                true => &["--no-new-privs"],
                false => &[],
            };
            let command = ["c", "sh", "-c", SHOW];
            rig.ok(&[&["exec"], privileges, options, &command].concat())
        };
        assert_eq!(exec(&[]), profile.shown());
        assert_eq!(exec(&["--user", "65534"]), profile.shown());
        assert_eq!(exec(&["--apparmor", &other.name]), other.shown());
        assert_eq!(exec(&["--apparmor", "unconfined"]), unconfined());
        rig.ok(&["delete", "--force", "c"]);

        process["args"] = json!(["/bin/sh", "-c", SHOW]);
        let bundle = rig.bundle("b", &process);
        assert_eq!(rig.ok(&["run", "--bundle", &bundle, "c"]), profile.shown());
        process["apparmorProfile"] = json!("unconfined");
        let bundle = rig.bundle("b", &process);
        assert_eq!(rig.ok(&["run", "--bundle", &bundle, "c"]), unconfined());
    }
}

/// Calls the program on a terminal: what is seen there. It has to succeed.
pub(crate) fn on_a_terminal(rig: &Rig, args: &[&str]) -> String {
    let (succeeded, seen) = seen_on_a_terminal(rig, args);
    assert!(succeeded, "{seen}");
    seen
}

/// Likewise, and whether it has succeeded.
pub(crate) fn seen_on_a_terminal(rig: &Rig, args: &[&str]) -> (bool, String) {
    let program = rig.command(args);
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<_> = words
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")))
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]);
    let (input, output) = (Stdio::piped(), Stdio::piped());
    let mut script = script.stdin(input).stdout(output).spawn().unwrap();
    // Its end would be seen on the terminal.
    let input = script.stdin.take();
    let output = script.wait_with_output().unwrap();
    drop(input);
    let seen = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    (output.status.success(), seen)
}

#[test]
fn init_and_exec_on_a_terminal_are_confined_by_the_profile() {
    let rig = Rig::new();
    if !is_enabled() {
        return is_refused(&rig);
    }
    let profile = Profile::load("terminal");
    let show = format!("test -t 0 && {{ {SHOW}; }} 2>/dev/null");
    let mut process = confined(&show, &profile.name);
    process["terminal"] = json!(true);
    let bundle = rig.bundle("b", &process);
    let seen = on_a_terminal(&rig, &["run", "--bundle", &bundle, "c"]);
    assert_eq!(seen, profile.shown());
    let bundle = rig.bundle("b", &confined("exec sleep 1000", &profile.name));
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let seen = on_a_terminal(
        &rig,
        &[
            "exec",
            "--tty",
            "c",
            "sh",
            "-c",
            "cat /proc/self/attr/current",
        ],
    );
    assert_eq!(seen, format!("{} (enforce)\n", profile.name));
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn profile_that_the_kernel_does_not_have_is_named_before_any_hook_is_run() {
    let rig = Rig::with_overlay();
    let trace = rig.path("trace");
    let note = format!("echo $0 >> {}", trace.display());
    let hooks = json!({ "createRuntime": [hook("createRuntime", &note)] });
    let process = confined("true", "reaper-test-none");
    let bundle = rig.bundle_with("b", &process, &json!({ "hooks": hooks }));
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    let reason = match is_enabled() {
        true => "the kernel has no profile of this name",
        false => "AppArmor is not enabled on this node",
    };
    let expected = format!("set the AppArmor profile reaper-test-none: {reason}");
    assert!(error.contains(&expected), "{error}");
    assert!(!trace.exists(), "a hook was run");

    rig.running("c");
    let error = rig.fails(
        255,
        &["exec", "--apparmor", "reaper-test-none", "c", "true"],
    );
    assert!(error.contains(&expected), "{error}");
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn hooks_of_the_creation_are_the_runtimes_and_not_confined() {
    let rig = Rig::with_overlay();
    if !is_enabled() {
        return is_refused(&rig);
    }
    let profile = Profile::load("hooks");
    let note = |kind: &str| {
        let trace = rig.path(kind);
        let script = format!("cat /proc/self/attr/current > {}", trace.display());
        (json!([hook(kind, &script)]), trace)
    };
    let (at_creation, created) = note("createContainer");
    let (at_start, started) = note("startContainer");
    let hooks = json!({ "createContainer": at_creation, "startContainer": at_start });
    let process = confined(SHOW, &profile.name);
    let bundle = rig.bundle_with("b", &process, &json!({ "hooks": hooks }));
    assert_eq!(rig.ok(&["run", "--bundle", &bundle, "c"]), profile.shown());
    assert_eq!(fs::read_to_string(created).unwrap(), "unconfined\n");
    // Those of the start are the container's own programs.
    let current = fs::read_to_string(started).unwrap();
    assert_eq!(current, format!("{} (enforce)\n", profile.name));
}
