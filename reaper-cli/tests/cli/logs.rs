//! `logs`, and where `run --detach` keeps them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::rig::{Rig, code, first_line};

#[test]
fn a_detached_command_keeps_its_output_until_it_is_deleted() {
    let rig = Rig::new();
    let script = "echo out; echo err >&2; cat; exit 3";
    rig.ok(&["run", "--detach", "--name", "c", "--", "sh", "-c", script]);
    assert_eq!(rig.ok(&["wait", "c"]), "3\n");
    assert_eq!(
        rig.ok(&["logs", "c"]),
        "out\nerr\n",
        "both, in order, and no input"
    );
    assert_eq!(rig.ok(&["logs", "--tail", "1", "c"]), "err\n");
    assert_eq!(
        rig.ok(&["logs", "--follow", "c"]),
        "out\nerr\n",
        "it has ended"
    );
    let [log] = &rig.logs()[..] else {
        panic!("one log")
    };
    let mode = fs::metadata(log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner alone");
    assert!(
        !rig.ok(&["state", "c"]).contains("reaper.cli/"),
        "an own matter"
    );
    rig.ok(&["delete", "c"]);
    assert!(rig.logs().is_empty());
}

#[test]
fn logs_follow_prints_new_output_until_container_exits() {
    let rig = Rig::new();
    let gate = rig.path("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let script = format!("echo one; read x <{}; echo two", gate.display());
    rig.ok(&["run", "--detach", "--name", "c", "--", "sh", "-c", &script]);
    let mut follower = rig
        .command(&["logs", "--follow", "c"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut follower), "one");
    let mut opened = fs::OpenOptions::new().write(true).open(&gate).unwrap();
    opened.write_all(b"go\n").unwrap();
    let mut rest = String::new();
    follower
        .stdout
        .as_mut()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    assert_eq!(rest, "two\n");
    assert_eq!(code(follower.wait().unwrap()), 0);
    rig.ok(&["delete", "c"]);
}

#[test]
fn a_container_may_be_deleted_while_its_log_is_followed() {
    let rig = Rig::new();
    let script = "echo one; exec sleep 1000";
    rig.ok(&["run", "--detach", "--name", "c", "--", "sh", "-c", script]);
    let mut follower = rig
        .command(&["logs", "-f", "c"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut follower), "one");
    rig.ok(&["delete", "--force", "c"]);
    assert_eq!(code(follower.wait().unwrap()), 0);
}

#[test]
fn command_of_another_user_can_reopen_its_log() {
    let rig = Rig::new();
    let script = "echo first; echo again >>/dev/stderr";
    rig.ok(&[
        "run", "--detach", "--name", "c", "--user", "12345", "--", "sh", "-c", script,
    ]);
    assert_eq!(rig.ok(&["wait", "c"]), "0\n");
    assert_eq!(rig.ok(&["logs", "c"]), "first\nagain\n");
    assert_eq!(fs::metadata(&rig.logs()[0]).unwrap().uid(), 12345);
    rig.ok(&["prune"]);
    assert!(rig.logs().is_empty(), "it goes with what is pruned too");
}

#[test]
fn only_started_detached_command_has_a_log() {
    let rig = Rig::new();
    rig.ok(&["run", "--keep", "--name", "attended", "--", "true"]);
    let error = rig.fails(1, &["logs", "attended"]);
    assert!(
        error.contains("has no log") && error.contains("--detach"),
        "{error}"
    );
    rig.fails(1, &["run", "--detach", "--", "no-such-command"]);
    assert!(rig.logs().is_empty());
    rig.running("taken");
    rig.fails(1, &["run", "--detach", "--name", "taken", "--", "true"]);
    assert_eq!(rig.logs().len(), 1, "only that of the first");
    // As with runc.
    let bundle = rig.shell("echo to the caller");
    let output = rig.call(&["run", "--detach", "--bundle", &bundle, "bundled"]);
    assert_eq!(output.stdout, b"to the caller\n");
}
