//! What workloads fill keeps no other container from being created or deleted.

mod common;

use std::{fs, path::Path};

use common::*;
use reaper_overlay::{Error, Overlays, ViewRequest};
use reaper_spec::{Mount, OverlayScope};
use rustix::mount::{MountFlags, MountPropagationFlags, mount};

fn with_volume(dir: &Path, id: &str, scope: OverlayScope, to: &str) -> ViewRequest {
    let mut request = request(dir, id, scope);
    request.overlay.size = Some(4 << 20);
    request.mounts.push(Mount {
        destination: to.into(),
        typ: Some("bind".to_owned()),
        source: Some("/etc".into()),
        options: vec!["bind".to_owned(), "ro".to_owned()],
    });
    request
}

/// Fills what is written to at `at` with what is at `with`.
const FILL: &str = "cat /dev/zero >/fill 2>/dev/null; echo x >/more 2>/dev/null && cat /more";

/// Scopes are made, joined, listed and removed, with volumes, though the overlay is full.
fn works_when_full(dir: &Path) {
    let shared = |id: &str, to: &str| with_volume(dir, id, OverlayScope::Node, to);
    let first = open(&shared("first", "/new/one"));
    let own_request = with_volume(dir, "own", OverlayScope::Container, "/new/two");
    attempt(&first, FILL);
    assert!(
        !attempt(&first, "echo x >/more").status.success(),
        "it is full"
    );

    let second = open(&shared("second", "/new/three"));
    sh(&second, "test -e /new/three/passwd");
    let own = open(&own_request);
    sh(&own, "test -e /new/two/passwd");
    // What is hidden is hidden here too.
    assert!(!sh(&own, "cat /etc/shadow").contains("$"));
    let overlays = Overlays::new(&own_request.overlay);
    assert_eq!(overlays.list().unwrap().len(), 2);
    for session in [first, second, own] {
        session.close().unwrap();
    }
    for info in overlays.list().unwrap() {
        assert!(info.members.is_empty());
        overlays.remove(&info.scope).unwrap();
    }
    let points = fs::read_to_string(dir.join("base/mount-points.json")).unwrap();
    assert!(points.contains(r#""points":{}"#), "{points}");
    for left in ["scopes", "live/scopes", "live/records/scopes"] {
        let left: Vec<_> = fs::read_dir(dir.join("base").join(left)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn containers_are_created_and_deleted_when_the_overlay_is_full() {
    isolated(works_when_full);
}

/// What an older Reaper has made: one tmpfs for the layers and for the records.
fn make_older_base(base: &Path) {
    fs::create_dir(base).unwrap();
    mount(
        "reaper-overlay",
        base,
        "tmpfs",
        MountFlags::empty(),
        c"size=4m",
    )
    .unwrap();
    change(base, MountPropagationFlags::UNBINDABLE);
    for dir in [
        "root",
        "scopes",
        "live/scopes",
        "live/changing",
        "live/members",
    ] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    fs::write(base.join("live/ready"), "1\n").unwrap();
}

#[test]
fn a_base_of_an_older_reaper_works_when_the_overlay_is_full() {
    isolated(|dir| {
        make_older_base(&dir.join("base"));
        works_when_full(dir);
    });
}

#[test]
fn mount_points_that_an_older_reaper_has_recorded_are_released() {
    isolated(|dir| {
        let base = dir.join("base");
        make_older_base(&base);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let made = dir.join("made");
        fs::create_dir(&made).unwrap();
        let path = made.to_str().unwrap();
        let table = format!(
            r#"{{"version":1,"boot":"{}","points":{{" {path}":{{"path":"{path}","made":"Directory",
            "users":{{"host":["old"]}},"guarded":[]}}}}}}"#,
            boot.trim_end()
        );
        fs::write(base.join("mount-points.json"), table).unwrap();

        // The container of the older one is deleted by this one.
        let mut old = request(dir, "old", OverlayScope::Node);
        old.overlay.enabled = false;
        let isolation = reaper_overlay::Configured::default();
        reaper_overlay::FilesystemIsolation::cleanup(&isolation, &old).unwrap();
        assert!(!made.exists(), "the last user has left");
    });
}

#[test]
fn containers_are_deleted_when_the_disk_of_the_overlay_is_full() {
    isolated(|dir| {
        mount_ext4(&dir.join("image"), &dir.join("disk"));
        let of = |id: &str| {
            let mut request = with_volume(dir, id, OverlayScope::Node, "/etc/shells");
            request.mounts[0].source = Some("/etc/passwd".into());
            request.overlay.base = dir.join("disk/base");
            request.overlay.size = None;
            request
        };
        let first = open(&of("first"));
        let base = dir.join("disk/base");
        fill(&dir.join("disk"));
        // What it mounts on is there already.
        let second = open(&of("second"));
        second.close().unwrap();
        first.close().unwrap();
        let record = base.join("live/records/mount-points.json");
        let points = fs::read_to_string(record).unwrap();
        assert!(points.contains(r#""points":{}"#), "{points}");
        let third = open(&of("third"));
        third.close().unwrap();
        fs::remove_file(dir.join("disk/fill")).unwrap();
        let error = Overlays::new(&of("none").overlay).remove(&"pod-none".parse().unwrap());
        assert!(matches!(error, Err(Error::ScopeNotFound { .. })));
    });
}

/// Leaves no byte free on the filesystem of the directory `dir`.
fn fill(dir: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(dir.join("fill")).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}
