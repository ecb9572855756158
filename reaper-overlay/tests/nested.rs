//! Mount points that lie inside another volume.

mod common;

use std::{fs, path::Path};

use common::*;
use reaper_overlay::{Configured, FilesystemIsolation, Session, ViewRequest};
use reaper_spec::{Mount, OverlayScope};

fn volume(request: &mut ViewRequest, from: &Path, to: &str) {
    request.mounts.push(Mount {
        destination: to.into(),
        typ: Some("bind".to_owned()),
        source: Some(from.to_owned()),
        options: vec!["rbind".to_owned(), "rprivate".to_owned()],
    });
}

/// Where the outer volume is. On the bare host it is made in the root that all tests share.
fn place(overlay: bool) -> String {
    let kind = if overlay { "over" } else { "bare" };
    format!("/nested-{kind}-{}", std::process::id())
}

/// A container `id` with a directory and a file mounted in a volume, which has places for neither.
fn nested(dir: &Path, id: &str, overlay: bool) -> ViewRequest {
    let mut request = request(dir, id, OverlayScope::Node);
    request.overlay.enabled = overlay;
    let place = place(overlay);
    let inside = |path: &str| format!("{place}/{path}");
    volume(&mut request, &dir.join("outer"), &place);
    volume(&mut request, &dir.join("inner"), &inside("on/the/way"));
    volume(&mut request, &dir.join("inner/content"), &inside("file"));
    request
}

fn prepare(dir: &Path) {
    fs::create_dir_all(dir.join("outer/kept")).unwrap();
    fs::create_dir(dir.join("inner")).unwrap();
    fs::write(dir.join("inner/content"), "x").unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn they_go_with_their_last_user(dir: &Path, overlay: bool) {
    prepare(dir);
    let open = |id: &str| Session::open(&Configured::default(), &nested(dir, id, overlay)).unwrap();
    let place = place(overlay);
    let cat = format!("cat {place}/on/the/way/content {place}/file");
    let (a, b) = (open("a"), open("b"));
    assert_eq!(sh(&a, &cat), "xx");
    assert_eq!(names(&dir.join("outer")), ["file", "kept", "on"]);
    a.close().unwrap();
    assert_eq!(sh(&b, &cat), "xx");
    // What somebody keeps beside stays.
    sh(&b, &format!("touch {place}/on/mine"));
    b.close().unwrap();
    assert_eq!(names(&dir.join("outer")), ["kept", "on"]);
    assert_eq!(names(&dir.join("outer/on")), ["mine"]);
    fs::remove_dir_all(dir.join("outer/on")).unwrap();

    // Of one whose monitor was killed nothing stays either.
    std::mem::forget(open("killed"));
    let killed = nested(dir, "killed", overlay);
    Configured::default().cleanup(&killed).unwrap();
    assert_eq!(names(&dir.join("outer")), ["kept"]);
    assert!(!Path::new(&place).exists());
}

#[test]
fn nested_mount_points_in_overlay_are_removed_with_last_user() {
    isolated(|dir| they_go_with_their_last_user(dir, true));
}

#[test]
fn nested_mount_points_on_host_are_removed_with_last_user() {
    isolated(|dir| they_go_with_their_last_user(dir, false));
}

#[test]
fn preexisting_files_at_nested_mount_points_stay() {
    isolated(|dir| {
        prepare(dir);
        fs::create_dir_all(dir.join("outer/on/the/way")).unwrap();
        fs::write(dir.join("outer/file"), "").unwrap();
        let request = nested(dir, "a", true);
        Session::open(&Configured::default(), &request)
            .unwrap()
            .close()
            .unwrap();
        assert_eq!(names(&dir.join("outer")), ["file", "kept", "on"]);
        assert!(dir.join("outer/on/the/way").exists());
    });
}

#[test]
fn volume_can_be_mounted_inside_containers_tmpfs() {
    isolated(|dir| {
        prepare(dir);
        for overlay in [true, false] {
            let mut request = request(dir, "a", OverlayScope::Node);
            request.overlay.enabled = overlay;
            let place = place(overlay);
            request.mounts.push(Mount {
                destination: place.clone().into(),
                typ: Some("tmpfs".to_owned()),
                source: Some("tmpfs".into()),
                options: vec!["nosuid".to_owned(), "size=1m".to_owned()],
            });
            volume(&mut request, &dir.join("inner"), &format!("{place}/a/b"));
            volume(
                &mut request,
                &dir.join("inner/content"),
                &format!("{place}/file"),
            );
            let session = Session::open(&Configured::default(), &request).unwrap();
            let script = format!("cat {place}/a/b/content {place}/file; stat -f -c %T {place}");
            assert_eq!(sh(&session, &script), "xxtmpfs");
            session.close().unwrap();
        }
    });
}
