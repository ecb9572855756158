//! `node`, on an image: nothing of this machine is looked at, and nothing of it changed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::rig::Rig;

/// An image with this configuration of containerd, in the rig's folder.
fn image(rig: &Rig, config: &str) -> PathBuf {
    let root = rig.path("image");
    fs::create_dir_all(root.join("etc/containerd")).unwrap();
    fs::write(root.join("etc/containerd/config.toml"), config).unwrap();
    let new = rig.path("new");
    fs::create_dir_all(&new).unwrap();
    for name in ["containerd-shim-reaper-v2", "reaper-runtime"] {
        fs::write(new.join(name), name).unwrap();
    }
    root
}

fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            let bytes = fs::read(&path).unwrap_or_default();
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

#[test]
fn an_image_is_installed_to_and_all_is_taken_out_of_it_again() {
    let rig = Rig::new();
    let root = image(&rig, "version = 2\n# the end, without a new line");
    let before = files(&root);
    let (root_arg, new) = (root.to_str().unwrap(), rig.path("new"));
    let node = |command| ["node", command, "--sysroot", root_arg];
    let install = [&node("install")[..], &["--from", new.to_str().unwrap()]].concat();

    let shown = rig.ok(&[&install[..], &["--dry-run"]].concat());
    for line in [
        "--- /etc/containerd/config.toml",
        "+[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.reaper-v2-pod]",
        "+pid = \"private\"",
        "install /usr/local/bin/containerd-shim-reaper-v2 from",
    ] {
        assert!(shown.contains(line), "no {line} in {shown}");
    }
    assert_eq!(files(&root), before, "--dry-run changes nothing");
    let failed = rig.fails(1, &[&node("upgrade")[..], &install[4..]].concat());
    assert!(failed.contains("nothing is installed"), "{failed}");

    rig.ok(&install);
    let installed = files(&root);
    assert!(rig.ok(&install).contains("Nothing to do"));
    assert_eq!(files(&root), installed);
    rig.ok(&node("status"));

    fs::remove_file(root.join("usr/local/bin/reaper-runtime")).unwrap();
    let output = rig.call(&[&node("status")[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut found = findings.as_array().unwrap().iter();
    let of_program = |it: &&Value| it["found"] == "/usr/local/bin/reaper-runtime was removed";
    assert_eq!(found.find(of_program).unwrap()["level"], "problem");
    rig.ok(&install);
    assert_eq!(files(&root), installed);

    fs::write(new.join("reaper-runtime"), "newer").unwrap();
    rig.ok(&[&node("upgrade")[..], &install[4..]].concat());
    let text = fs::read_to_string(root.join("usr/local/bin/reaper-runtime")).unwrap();
    assert_eq!(text, "newer");

    let shown = rig.ok(&[&node("uninstall")[..], &["--dry-run"]].concat());
    assert!(shown.contains("-[plugins"), "{shown}");
    rig.ok(&node("uninstall"));
    assert_eq!(files(&root), before);
    assert_eq!(rig.ok(&node("uninstall")), "");
}

#[test]
fn what_cannot_be_installed_to_is_refused_by_name() {
    let rig = Rig::new();
    let root = image(&rig, "disabled_plugins = [\"cri\"]\n");
    let (root_arg, new) = (root.to_str().unwrap(), rig.path("new"));
    let before = files(&root);
    let install = [
        "node",
        "install",
        "--sysroot",
        root_arg,
        "--from",
        new.to_str().unwrap(),
    ];
    assert!(rig.fails(1, &install).contains("disables the CRI"));
    let k0s = root.join("etc/k0s/containerd.toml");
    fs::create_dir(k0s.parent().unwrap()).unwrap();
    fs::write(&k0s, "version = 2\n").unwrap();
    assert!(rig.fails(1, &install).contains("several containerds"));
    fs::remove_dir_all(k0s.parent().unwrap()).unwrap();
    assert_eq!(files(&root), before);
    let elsewhere = ["node", "install", "--sysroot", new.to_str().unwrap()];
    assert!(rig.fails(1, &elsewhere).contains("is it a root?"));
}

#[test]
fn new_directories_are_for_everyone_to_enter_whatever_the_umask() {
    let rig = Rig::new();
    let root = image(&rig, "version = 2\n");
    let new = rig.path("new");
    let install = [
        "node",
        "install",
        "--sysroot",
        root.to_str().unwrap(),
        "--from",
        new.to_str().unwrap(),
    ];
    let mut call = rig.command_by("umask 077; exec \"$0\" \"$@\"", &install);
    assert!(call.output().unwrap().status.success());
    for folder in ["usr", "usr/local/bin", "etc/reaper"] {
        let mode = fs::metadata(root.join(folder))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755, "{folder}");
    }
}

#[test]
fn an_unreadable_record_keeps_no_uninstallation_that_is_forced() {
    let rig = Rig::new();
    let config = rig.path("containerd.toml");
    fs::write(&config, "version = 2\n").unwrap();
    fs::create_dir_all(rig.root().join("bad")).unwrap();
    fs::write(rig.root().join("bad/state.json"), "{").unwrap();
    let plain = [
        "node",
        "uninstall",
        "--dry-run",
        "--containerd-config",
        config.to_str().unwrap(),
    ];
    assert!(rig.fails(1, &plain).contains("bad"));
    rig.ok(&[&plain[..], &["--force"]].concat());
}
