//! SELinux's labels, where the kernel has it, with Debian's policy and in its domain of who has logged in;
//! elsewhere that they are refused.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    apparmor::{on_a_terminal, seen_on_a_terminal},
    rig::{Rig, shell},
};

/// One that differs from the caller's, and to which it may change also with `no_new_privs`: the type is the same.
const LABEL: &str = "system_u:system_r:unconfined_t:s0";

/// One to which the caller may change, but not with `no_new_privs`.
const OTHER: &str = "system_u:system_r:initrc_t:s0";

/// One to which it may not change.
const FORBIDDEN: &str = "system_u:system_r:init_t:s0";

/// One of files, whose last part has to be kept from being two options.
const OF_FILES: &str = "system_u:object_r:user_tmp_t:s0:c1,c2";

/// One of terminals.
const OF_TERMINALS: &str = "system_u:object_r:user_devpts_t:s0";

const SHOW: &str = "tr -d '\\0' < /proc/self/attr/current; echo";

fn is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// A process of this label.
fn labelled(script: &str, label: &str) -> Value {
    let mut process = shell(script);
    process["selinuxLabel"] = json!(label);
    process
}

/// Where the kernel has no SELinux: a container, its mounts and a process that ask for it are refused by its name.
fn is_refused(rig: &Rig) {
    let reason = "SELinux is not enabled on this node";
    let bundle = rig.bundle("b", &labelled("true", LABEL));
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    let step = format!("set the SELinux label {LABEL}: {reason}");
    assert!(error.contains(&step), "{error}");
    let linux = json!({ "linux": { "mountLabel": OF_FILES } });
    let bundle = rig.bundle_with("b", &shell("true"), &linux);
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    let expected = format!("label mounts {OF_FILES}: {reason}");
    assert!(error.contains(&expected), "{error}");
    rig.running("c");
    let error = rig.fails(255, &["exec", "--process-label", LABEL, "c", "true"]);
    assert!(error.contains(&step), "{error}");
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn init_and_exec_have_the_label_of_the_bundle() {
    let rig = Rig::with_overlay();
    if !is_enabled() {
        return is_refused(&rig);
    }
    for no_new_privileges in [false, true] {
        let mut process = labelled("exec sleep 1000", LABEL);
        process["noNewPrivileges"] = json!(no_new_privileges);
        let bundle = rig.bundle("b", &process);
        rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
        let current = format!("/proc/{}/attr/current", rig.state("c")["pid"]);
        let current = fs::read_to_string(current).unwrap();
        assert_eq!(current.trim_end_matches('\0'), LABEL);
        let privileges: &[&str] = match no_new_privileges {
            true => &["--no-new-privs"],
            false => &[],
        };
        let exec = |options: &[&str]| {
            let args = [&["exec"], privileges, options, &["c", "sh", "-c", SHOW]].concat();
            rig.call(&args)
        };
        let shown = |options: &[&str]| String::from_utf8(exec(options).stdout).unwrap();
        assert_eq!(shown(&[]), format!("{LABEL}\n"));
        assert_eq!(shown(&["--user", "65534"]), format!("{LABEL}\n"));
        let other = exec(&["--process-label", OTHER]);
        match no_new_privileges {
            false => assert_eq!(other.stdout, format!("{OTHER}\n").as_bytes()),
            true => {
                let error = String::from_utf8(other.stderr).unwrap();
                let expected =
                    format!("Operation not permitted: may it have the SELinux label {OTHER}?");
                assert!(error.contains(&expected), "{error}");
            }
        }
        rig.ok(&["delete", "--force", "c"]);

        process["args"] = json!(["/bin/sh", "-c", SHOW]);
        let bundle = rig.bundle("b", &process);
        let seen = rig.ok(&["run", "--bundle", &bundle, "c"]);
        assert_eq!(seen, format!("{LABEL}\n"));
    }
}

#[test]
fn label_that_the_policy_forbids_or_does_not_know_is_an_error() {
    let rig = Rig::new();
    if !is_enabled() {
        return is_refused(&rig);
    }
    let denied = format!(
        "exec /bin/sh: permission denied: is it an executable file, and may it have the SELinux label {FORBIDDEN}?"
    );
    let mut process = labelled("true", FORBIDDEN);
    let bundle = rig.bundle("b", &process);
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    assert!(error.contains(&denied), "{error}");
    process["terminal"] = json!(true);
    let bundle = rig.bundle("b", &process);
    let (succeeded, seen) = seen_on_a_terminal(&rig, &["run", "--bundle", &bundle, "c"]);
    assert!(!succeeded && seen.contains(&denied), "{seen}");
    rig.running("c");
    for terminal in [&[][..], &["--tty"]] {
        let command = ["--process-label", FORBIDDEN, "c", "/bin/sh", "-c", "true"];
        let exec = [&["exec"], terminal, &command].concat();
        let (succeeded, seen) = seen_on_a_terminal(&rig, &exec);
        assert!(!succeeded && seen.contains(&denied), "{seen}");
    }
    rig.ok(&["delete", "--force", "c"]);
    let unknown = "SELinux label reaper-test-none";
    let bundle = rig.bundle("b", &labelled("true", "reaper-test-none"));
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    assert!(error.contains(unknown), "{error}");
    rig.running("c");
    let exec = ["exec", "--process-label", "reaper-test-none", "c", "true"];
    let error = rig.fails(255, &exec);
    assert!(error.contains(unknown), "{error}");
    assert!(
        error.contains("the kernel's policy has no such label"),
        "{error}"
    );
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn keys_and_mounts_of_a_container_have_its_labels() {
    /// The label of the session keyring, by keyctl(2).
    const KEYRING: &str = "perl -e '$b = \"\\0\" x 256; $n = syscall(250, 17, -3, $b, 256); print substr($b, 0, $n - 1), \"\\n\"'";
    let rig = Rig::with_overlay();
    if !is_enabled() {
        return is_refused(&rig);
    }
    let tmpfs = |to: &str, options: &[&str]| json!({ "destination": to, "type": "tmpfs", "source": "tmpfs", "options": options });
    let quoted = "context=\"system_u:object_r:tmp_t:s0:c3,c4\"";
    let fields = json!({
        "linux": { "mountLabel": OF_FILES },
        // The third is an engine's, of which the node's is there instead.
        "mounts": [
            tmpfs("/mnt", &["nosuid"]), tmpfs("/opt", &["size=1m", quoted]), tmpfs("/dev/shm", &["nosuid"]),
        ],
    });
    let files = "echo > /mnt/file; stat -c %C /mnt /mnt/file /opt";
    let script = format!("{KEYRING}; {files}; exec sleep 1000");
    let process = labelled(&script, LABEL);
    let bundle = rig.bundle_with("b", &process, &fields);
    let expected = format!("{LABEL}\n{OF_FILES}\n{OF_FILES}\nsystem_u:object_r:tmp_t:s0:c3,c4\n");
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let script = format!("{KEYRING}; {files}");
    assert_eq!(rig.ok(&["exec", "c", "sh", "-c", &script]), expected);
    rig.ok(&["delete", "--force", "c"]);
    let bundle = rig.bundle_with("b", &labelled(&script, LABEL), &fields);
    assert_eq!(rig.ok(&["run", "--bundle", &bundle, "c"]), expected);
}

#[test]
fn terminal_of_init_and_exec_has_the_label_of_mounts() {
    let rig = Rig::new();
    if !is_enabled() {
        return is_refused(&rig);
    }
    let linux = json!({ "linux": { "mountLabel": OF_TERMINALS } });
    let show = format!("stat -Lc %C /dev/stdin; {SHOW}");
    let expected = format!("{OF_TERMINALS}\n{LABEL}\n");
    let mut process = labelled(&show, LABEL);
    process["terminal"] = json!(true);
    let bundle = rig.bundle_with("b", &process, &linux);
    assert_eq!(
        on_a_terminal(&rig, &["run", "--bundle", &bundle, "c"]),
        expected
    );
    let bundle = rig.bundle_with("b", &labelled("exec sleep 1000", LABEL), &linux);
    rig.quietly(&["run", "--detach", "--bundle", &bundle, "c"]);
    let seen = on_a_terminal(&rig, &["exec", "--tty", "c", "sh", "-c", &show]);
    assert_eq!(seen, expected);
    rig.ok(&["delete", "--force", "c"]);
}
