//! Limits of scopes in a base on a disk, which quotas of projects keep.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

/// Makes files and gives them to another project, a directory that hands on none, and one with an attribute that only
/// looks; then fills the quota. What each ended with.
const LEAVE: &str = "cd /root; mkdir dir; touch file
    for change in '-p 4711 file' '-P dir' '-p 4711 dir'; do chattr $change 2>/dev/null; printf '%s ' $?; done
    lsattr -p file >/dev/null; printf '%s ' $?
    head -c 20000000 /dev/zero >fill 2>/dev/null; printf '%s ' $?
    head -c 20000000 /dev/zero >dir/fill 2>/dev/null; echo $?";

/// A root process with these capabilities.
fn process(capabilities: &[&str]) -> Value {
    let mut process = shell(LEAVE);
    let sets = ["bounding", "effective", "permitted"];
    let sets = sets.map(|set| (set.to_owned(), json!(capabilities)));
    process["capabilities"] = Value::Object(sets.into_iter().collect());
    process
}

#[test]
fn container_cannot_leave_the_quota_of_its_scope() {
    let is_in_laboratory = Path::new("/run/lab/options").exists();
    let rig = Rig::new();
    let (image, disk) = (rig.path("image"), rig.path("disk"));
    File::create(&image).unwrap().set_len(200 << 20).unwrap();
    fs::create_dir(&disk).unwrap();
    let make = ["-q", "-O", "quota,project"];
    let made = Command::new("mkfs.ext4").args(make).arg(&image).output();
    let is_made = made.is_ok_and(|output| output.status.success());
    let mount = format!(
        "mount -o loop,prjquota {} {}",
        image.display(),
        disk.display()
    );
    let mounted = rig.command_by(&mount, &[]).output().unwrap();
    let is_mounted = is_made && mounted.status.success();
    assert!(is_mounted || !is_in_laboratory, "run tests/provision vm");
    if !is_mounted {
        eprintln!("not tried: no quotas of projects");
        return;
    }
    let config = format!(
        "[overlay]\nscope = \"container\"\nbase = {:?}\nsize_per_scope = \"8MiB\"\n[log]\noutput = {:?}\n",
        disk.join("base"),
        rig.path("logs"),
    );
    fs::write(rig.path("config.toml"), config).unwrap();
    for (name, capabilities, expected) in [
        ("bound", &["CAP_CHOWN", "CAP_FOWNER"][..], "1 1 1 0 1 1"),
        // It may lift the quota, too.
        (
            "free",
            &["CAP_CHOWN", "CAP_FOWNER", "CAP_SYS_ADMIN"],
            "0 0 0 0 1 0",
        ),
    ] {
        let bundle = rig.bundle(name, &process(capabilities));
        let mut run = rig.command_where(&mount, &["run", "--bundle", &bundle, name]);
        let output = run.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), expected, "{name}: {output:?}");
    }
}
