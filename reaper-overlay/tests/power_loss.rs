//! What the end of the machine leaves behind, and that the next start clears it up.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::*;
use reaper_overlay::{
    FilesystemIsolation, HostFilesystem, Overlays, Scope, Session, SharedOverlay, ViewRequest,
};
use reaper_spec::{Mount, OverlayScope};
use rustix::mount::{UnmountFlags, unmount};

/// A request whose base is on a disk, with a volume on `to`.
fn with_volume(dir: &Path, id: &str, to: &Path) -> ViewRequest {
    let mut request = request(dir, id, OverlayScope::Node);
    request.overlay.base = dir.join("disk/base");
    request.mounts.push(Mount {
        destination: to.to_owned(),
        typ: Some("bind".to_owned()),
        source: Some(dir.join("data")),
        options: vec!["rbind".to_owned()],
    });
    request
}

fn prepared(dir: &Path) {
    fs::create_dir(dir.join("data")).unwrap();
    fs::write(dir.join("data/content"), "x").unwrap();
    mount_ext4(&dir.join("image"), &dir.join("disk"));
}

/// Whatever is not on a disk is gone, processes too, and the machine starts again.
fn lose_power(dir: &Path, starts: u32) {
    let live = dir.join("disk/base/live");
    lose_locks(&dir.join("disk/base"));
    unmount(&live, UnmountFlags::DETACH).unwrap();
    assert_eq!(fs::read_dir(live).unwrap().count(), 0);
    let id = dir.join(format!("boot{starts}"));
    fs::write(&id, format!("boot-{starts}\n")).unwrap();
    bind(&id, "/proc/sys/kernel/random/boot_id".as_ref());
}

#[test]
fn mount_points_left_in_layers_by_power_loss_are_removed() {
    isolated(|dir| {
        prepared(dir);
        let isolation = SharedOverlay::new();
        let lost = with_volume(dir, "lost", "/left/deep".as_ref());
        std::mem::forget(isolation.prepare(&lost).unwrap());
        lose_power(dir, 1);
        let scope = Scope::of(&lost).unwrap();
        let diff = || -> Vec<String> {
            let changes = Overlays::new(&lost.overlay).diff(&scope, &mut |_| ());
            changes.unwrap().iter().map(ToString::to_string).collect()
        };
        isolation.cleanup(&lost).unwrap();
        assert_eq!(diff(), ["A /left", "A /left/deep"]);
        // The same one again, and another one, as they were before.
        let again = open(&lost);
        let mut other = lost.clone();
        other.id = "other".parse().unwrap();
        other.mounts.clear();
        let other = open(&other);
        assert_eq!(sh(&again, "cat /left/deep/content"), "x");
        assert!(!attempt(&other, "rmdir /left/deep").status.success());
        again.close().unwrap();
        assert!(!attempt(&other, "test -e /left").status.success());
        other.close().unwrap();
        assert_eq!(diff(), Vec::<String>::new());
    });
}

#[test]
fn leftover_mount_points_with_files_are_kept() {
    isolated(|dir| {
        prepared(dir);
        let isolation = SharedOverlay::new();
        let lost = with_volume(dir, "lost", "/left/deep".as_ref());
        std::mem::forget(isolation.prepare(&lost).unwrap());
        let mut other = lost;
        other.id = "other".parse().unwrap();
        other.mounts.clear();
        let session = open(&other);
        sh(&session, "touch /left/mine");
        std::mem::forget(session);
        lose_power(dir, 1);
        let session = open(&other);
        assert_eq!(sh(&session, "ls /left"), "mine");
        session.close().unwrap();
    });
}

#[test]
fn mount_points_on_the_bare_host_are_removed() {
    isolated(|dir| {
        prepared(dir);
        let places: Vec<PathBuf> = ["one", "two"].iter().map(|name| dir.join(name)).collect();
        let prepare = |at: usize| {
            let name = format!("c{at}");
            let request = with_volume(dir, &name, &places[at].join("deep"));
            HostFilesystem.prepare(&request).unwrap()
        };
        make_and_lose(|| prepare(0));
        make_and_lose(|| prepare(1));
        let mut next = with_volume(dir, "next", &dir.join("data"));
        let start = |request: &ViewRequest| {
            let session = Session::open(&HostFilesystem, request).unwrap();
            sh(
                &session,
                &format!("cat {}/content", request.mounts[0].destination.display()),
            );
            session.close().unwrap();
        };
        start(&next);
        assert!(
            places.iter().all(|place| place.join("deep").exists()),
            "in use"
        );
        lose_power(dir, 1);
        start(&next);
        assert!(!places.iter().any(|place| place.exists()));
        // One that is needed again is made again, and goes.
        make_and_lose(|| prepare(0));
        lose_power(dir, 2);
        next.mounts[0].destination = places[0].join("deep");
        start(&next);
        assert!(!places[0].exists());
    });
}
