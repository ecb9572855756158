//! `prune`, `doctor`, `completions` and `man`.

use std::fs;

use serde_json::Value;

use crate::rig::{Rig, code};

/// What `doctor` found about something.
fn finding(rig: &Rig, about: &str) -> Value {
    let output = rig.call(&["doctor", "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = findings.as_array().unwrap().iter();
    let mut found = findings.filter(|finding| finding["about"] == about);
    found.next().unwrap().clone()
}

#[test]
fn prune_removes_what_has_stopped_and_says_so() {
    let rig = Rig::with_overlay();
    rig.ok(&[
        "run",
        "--name",
        "old",
        "--keep",
        "--overlay=container",
        "--",
        "touch",
        "/etc/x",
    ]);
    rig.detached("running", &["sleep", "1000"]);
    assert_eq!(finding(&rig, "containers")["level"], "warning");
    assert_eq!(rig.ok(&["prune", "--dry-run"]), "container old\n");
    assert_eq!(rig.state("old")["status"], "stopped");
    assert_eq!(rig.ok(&["prune"]), "container old\n");
    assert_eq!(rig.ok(&["list", "--quiet"]), "running\n");
    assert_eq!(finding(&rig, "containers")["level"], "good");

    // An overlay goes only when it is asked for, and when nobody is in it.
    assert_eq!(rig.ok(&["prune", "--overlays", "0s"]), "");
    rig.ok(&["delete", "--force", "running"]);
    assert_eq!(rig.ok(&["prune", "--overlays", "1h"]), "");
    assert_eq!(
        rig.ok(&["prune", "--overlays", "0s", "--dry-run"]),
        "overlay node\n"
    );
    assert_eq!(rig.ok(&["prune", "--overlays", "0s"]), "overlay node\n");
    assert_eq!(rig.ok(&["overlay", "ls", "--json"]), "[]\n");
}

#[test]
fn doctor_names_what_is_left_over_with_the_way_to_remove_it() {
    let rig = Rig::with_overlay();
    let lost = rig.root().join("lost");
    fs::create_dir_all(&lost).unwrap();
    let found = finding(&rig, "leftovers");
    assert_eq!(found["fix"], format!("`rm -r {}`", lost.display()));
    let text = String::from_utf8(rig.call(&["doctor"]).stdout).unwrap();
    assert!(text.contains("belongs to no container"), "{text}");
    fs::remove_dir(lost).unwrap();
    let output = rig.call(&["doctor"]);
    // As root, on a kernel on which these tests run.
    assert_eq!(code(output.status), 0, "{output:?}");
}

#[test]
fn completions_know_the_commands() {
    let rig = Rig::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = rig.ok(&["completions", shell]);
        for word in ["overlay", "prune", "keep"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let rig = Rig::new();
    let folder = rig.path("man1");
    fs::create_dir(&folder).unwrap();
    rig.ok(&["man", folder.to_str().unwrap()]);
    let page = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert!(page("reaper-runtime.1").contains("reaper\\-runtime\\-run(1)"));
    for name in ["run", "overlay-diff", "state-migrate", "logs"] {
        let text = page(&format!("reaper-runtime-{name}.1"));
        assert!(text.contains("Examples:"), "{name}: {text}");
    }
    assert!(rig.fails(1, &["man", "/nowhere"]).contains("/nowhere"));
}

#[test]
fn a_mistyped_name_gets_a_suggestion() {
    let rig = Rig::new();
    rig.running("web-server");
    for args in [
        &["state", "web-sever"][..],
        &["kill", "web"],
        &["logs", "wb-server"],
    ] {
        let error = rig.fails(1, args);
        assert!(error.ends_with("did you mean web-server?\n"), "{error}");
    }
    assert!(
        rig.fails(1, &["state", "mail"])
            .contains("reaper-runtime list")
    );
}
