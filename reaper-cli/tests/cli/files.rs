//! What a bundle says of the files that its processes see.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

/// Makes a bundle of a line of shell, with these fields beside its process.
fn bundle(rig: &Rig, script: &str, fields: &Value) -> String {
    rig.bundle_with("bundle", &shell(script), fields)
}

/// Prints the files of which this fails because they are read-only.
const TRY: &str = "for dir in / /usr /run /dev /srv/data /srv/fixed /dev/shm; do
    touch $dir/reaper-test-$$ 2>/dev/null && rm $dir/reaper-test-$$ && echo $dir
done";

#[test]
fn a_read_only_root_is_read_only_for_run_and_exec() {
    for rig in [Rig::new(), Rig::with_overlay()] {
        let (data, fixed) = (rig.path("data"), rig.path("fixed"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&fixed).unwrap();
        let bind = |to: &str, from: &Path, mode: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", mode]});
        let fields = json!({
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [bind("/srv/data", &data, "rw"), bind("/srv/fixed", &fixed, "ro")],
        });
        let bundle = bundle(&rig, &format!("{TRY}; exec sleep 1000 >/dev/null"), &fields);
        rig.quietly(&["create", "--bundle", &bundle, "c"]);
        rig.quietly(&["start", "c"]);
        let writable = "/srv/data\n/dev/shm\n";
        assert_eq!(rig.ok(&["exec", "c", "sh", "-c", TRY]), writable);
        rig.ok(&["delete", "--force", "c"]);
        assert_eq!(
            rig.ok(&["run", "--read-only", "--", "sh", "-c", TRY]),
            "/dev/shm\n"
        );
        fs::write(rig.path("written"), "").unwrap();
    }
}

#[test]
fn masked_and_read_only_paths_are_seen_by_run_and_exec() {
    let rig = Rig::with_overlay();
    let fields = json!({
        "linux": {
            "maskedPaths": ["/proc/keys", "/proc/version", "/proc/no-such-file", "/proc/fs"],
            "readonlyPaths": ["/proc/sys", "/proc/no-such-file"],
        },
    });
    let bundle = bundle(&rig, "exec sleep 1000", &fields);
    rig.quietly(&["create", "--bundle", &bundle, "c"]);
    rig.quietly(&["start", "c"]);
    let exec = |script: &str| rig.ok(&["exec", "c", "sh", "-c", script]);
    assert_eq!(exec("cat /proc/keys /proc/version; ls -A /proc/fs"), "");
    // The value that it has, should it be written.
    let write = "v=$(cat /proc/sys/vm/swappiness); echo $v 2>/dev/null >/proc/sys/vm/swappiness";
    assert_eq!(exec(&format!("{write} || echo read-only")), "read-only\n");
    let table = exec("cat /proc/self/mountinfo");
    let mount = |path: &str| {
        let at = format!(" {path} ");
        let line = table.lines().rfind(|line| line.contains(&at));
        line.unwrap_or_else(|| panic!("no {path}: {table}"))
            .to_owned()
    };
    assert!(mount("/proc/sys").contains(" /proc/sys ro,"), "{table}");
    assert!(
        mount("/proc/fs").contains(" - tmpfs reaper-mask ro,"),
        "{table}"
    );
    assert!(
        mount("/proc/version").contains(" /null /proc/version "),
        "{table}"
    );
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!own.contains(" /proc/version "), "{own}");
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn the_name_files_of_a_bundle_and_other_mounts_are_seen_unless_the_admin_says_otherwise() {
    let rig = Rig::with_overlay();
    let own = rig.path("own");
    fs::write(&own, "own").unwrap();
    let bind = |to: &str| json!({"destination": to, "source": own, "options": ["bind", "ro"]});
    let names = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];
    let mut mounts: Vec<Value> = names.iter().map(|to| bind(to)).collect();
    mounts.push(
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
    );
    mounts.push(bind("/sys/kernel/mm/transparent_hugepage/enabled"));
    let script = format!(
        "cat {}; touch /sys/x 2>/dev/null || echo; cat /sys/kernel/mm/transparent_hugepage/enabled",
        names.join(" ")
    );
    let bundle = bundle(&rig, &script, &json!({ "mounts": mounts }));
    let said = rig.ok(&["run", "--bundle", &bundle, "c"]);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["ownownown", "own"]);
    let output = rig
        .command(&["run", "--bundle", &bundle, "c"])
        .env("REAPER_DNS", "host")
        .output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(
        said.lines().last() == Some("own") && !said.contains("ownown"),
        "{said}"
    );
}

#[test]
fn a_mount_that_cannot_be_made_is_named() {
    let rig = Rig::new();
    for (mount, named) in [
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["idmap"]}),
            "\"idmap\"",
        ),
        (
            json!({"destination": "/x", "type": "cgroup"}),
            "cgroup on /x",
        ),
        (
            json!({"destination": "/proc/acpi", "type": "tmpfs"}),
            "/proc/acpi",
        ),
    ] {
        let bundle = bundle(&rig, "true", &json!({ "mounts": [mount] }));
        let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_device_of_a_bundle_is_there_for_its_container_alone() {
    let rig = Rig::with_overlay();
    let path = format!("/dev/reaper-test-{}", std::process::id());
    let devices = json!([
        {"path": path, "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 33},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
    ]);
    let fields = json!({"linux": {"devices": devices, "rootfsPropagation": "rprivate"}});
    let script = format!(
        "stat -c '%t:%T %a %u' {path}; head -c 1 {path} | wc -c; echo x >/dev/null
         grep ' / / ' /proc/self/mountinfo | grep -c master"
    );
    let bundle = bundle(&rig, &script, &fields);
    let output = rig.call(&["run", "--bundle", &bundle, "c"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "1:5 600 33\n1\n0\n"
    );
    assert!(!Path::new(&path).exists());
}

#[test]
fn the_nodes_admin_may_leave_the_restrictions_of_files_out() {
    let rig = Rig::with_overlay();
    rig.configure("", "\n[policy]\nprivileges = \"node\"\n");
    let fields = json!({
        "root": {"path": "rootfs", "readonly": true},
        "linux": {"maskedPaths": ["/proc/version"]},
        "mounts": [{"destination": "/dev/shm", "type": "tmpfs", "options": ["ro"]}],
    });
    let script = "grep -q Linux /proc/version && touch /opt/new /dev/shm/$$ && rm /dev/shm/$$";
    let bundle = bundle(&rig, script, &fields);
    let output = rig.call(&["run", "--bundle", &bundle, "c"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("read-only and masked files of the spec"),
        "{said}"
    );
}
