//! `prune`, `doctor`, `completions` and `man`.

use std::{fs, path::Path, process::Command};

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
fn prune_removes_stopped_containers_and_lists_them() {
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
fn doctor_names_leftovers_and_their_remedy() {
    let rig = Rig::with_overlay();
    let lost = rig.root().join("lost");
    fs::create_dir_all(&lost).unwrap();
    let found = finding(&rig, "leftovers");
    let fix = found["fix"].as_str().unwrap();
    assert!(
        fix.contains("`reaper-runtime doctor --fix` removes it"),
        "{fix}"
    );
    assert!(
        fix.contains(&format!("`rm -r {}`", lost.display())),
        "{fix}"
    );
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

/// Makes a folder look as if it were made long ago.
fn age(path: &Path) {
    let status = Command::new("touch")
        .args(["-d", "2001-01-01"])
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

/// What `doctor --fix` says of leftovers.
fn fixed(rig: &Rig) -> Vec<String> {
    let output = rig.call(&["doctor", "--no-trial", "--fix", "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = findings.as_array().unwrap().iter();
    let left = findings.filter(|finding| finding["about"] == "leftovers");
    let text = |finding: &Value| finding["found"].as_str().unwrap().to_owned();
    // Other tests of this machine make cgroups.
    left.map(text)
        .filter(|text| !text.contains("/reaper/"))
        .collect()
}

#[test]
fn doctor_removes_what_crashes_left_and_names_each_thing() {
    let rig = Rig::with_overlay();
    // Containers that are there, whose overlays must stay.
    rig.ok(&[
        "run",
        "--name",
        "kept",
        "--keep",
        "--overlay=container",
        "--",
        "touch",
        "/etc/x",
    ]);
    rig.detached("alive", &["sleep", "1000"]);
    // As a starter leaves it that was killed after it made the overlay, and before it made a record.
    rig.ok(&[
        "run",
        "--name",
        "gone",
        "--keep",
        "--overlay=container",
        "--",
        "touch",
        "/etc/x",
    ]);
    let record = rig.root().join("gone");
    fs::remove_dir_all(&record).unwrap();
    // A folder with a socket that no process listens on, and a mount.
    let lost = rig.root().join("lost");
    fs::create_dir_all(lost.join("mounted")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(lost.join("monitor.sock")).unwrap());
    let outside = rig.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "the node's").unwrap();
    let none: Option<&str> = None;
    nix::mount::mount(
        Some(&outside),
        &lost.join("mounted"),
        none,
        nix::mount::MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    age(&lost);
    // And what a removal that was killed did not get to remove.
    let trash = rig.path("base/trash/4194305.1");
    fs::create_dir_all(&trash).unwrap();
    fs::write(trash.join("file"), "of it").unwrap();

    let scopes = || -> Vec<String> {
        let scopes: Value = serde_json::from_str(&rig.ok(&["overlay", "ls", "--json"])).unwrap();
        let scopes = scopes.as_array().unwrap().iter();
        scopes
            .map(|scope| scope["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(scopes().len(), 3);
    let said = finding(&rig, "leftovers");
    assert!(
        said["fix"].as_str().unwrap().contains("doctor --fix"),
        "{said}"
    );
    assert!(lost.exists(), "it only looked");

    let said = fixed(&rig);
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said.iter().all(|text| text.starts_with("removed ")),
        "{said:?}"
    );
    for thing in [
        "root/lost,",
        "the overlay container-gone",
        "of removed overlays",
    ] {
        assert!(
            said.iter().any(|text| text.contains(thing)),
            "{thing}: {said:?}"
        );
    }
    assert!(!lost.exists() && !trash.exists());
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"the node's");
    let left = scopes();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!left.iter().any(|scope| scope.contains("gone")), "{left:?}");
    assert_eq!(rig.ok(&["overlay", "diff", "kept"]), "A /etc/x\n");
    assert_eq!(rig.state("alive")["status"], "running");
    assert_eq!(fixed(&rig), [] as [String; 0]);
}

#[test]
fn doctor_removes_mount_points_on_the_node_whose_container_is_gone() {
    let rig = Rig::with_overlay();
    let volume = rig.path("volume");
    fs::create_dir(&volume).unwrap();
    // Below /run the mount point is on the node itself.
    let point = rig.path("point");
    let fields = serde_json::json!({ "mounts": [
        { "destination": point, "source": volume, "type": "bind", "options": ["bind"] }
    ]});
    let bundle = rig.bundle_with("b", &crate::rig::shell("exec sleep 1000"), &fields);
    rig.quietly(&["create", "--bundle", &bundle, "c"]);
    assert!(point.is_dir());
    // The monitor and all that it made are killed at once, and the record is lost.
    let pid = rig.state("c")["pid"].to_string();
    crate::rig::kill_monitor(&pid);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    while crate::rig::is_alive(&pid) {
        std::thread::yield_now();
    }
    fs::remove_dir_all(rig.root().join("c")).unwrap();
    let said = fixed(&rig);
    let named = format!("its mount point {}", point.display());
    assert!(said.iter().any(|text| text.contains(&named)), "{said:?}");
    assert!(!point.exists());
}
