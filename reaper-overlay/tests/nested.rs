//! Mount points that lie inside another volume.

mod common;

use std::{fs, path::Path, process::Command};

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
    make_and_lose(|| open("killed"));
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

/// The same container with another base.
fn with_base(mut request: ViewRequest, dir: &Path, base: &str) -> ViewRequest {
    request.overlay.base = dir.join(base);
    request
}

fn start(request: &ViewRequest) -> Session {
    Session::open(&Configured::default(), request).unwrap()
}

#[test]
fn what_containers_of_two_bases_mount_on_stays_until_both_have_ended() {
    isolated(|dir| {
        prepare(dir);
        // One of the other base's has a part of the volume for its own volume.
        let mut part = request(dir, "part", OverlayScope::Node);
        volume(&mut part, &dir.join("outer/on"), "/part");
        volume(&mut part, &dir.join("inner"), "/part/the/way");
        for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
            let first = nested(dir, "first", first);
            let second = with_base(nested(dir, "second", second), dir, "other");
            for with_part in [false, true] {
                for first_ends_first in [true, false] {
                    let cat = format!("cat {}/on/the/way/content", place(first.overlay.enabled));
                    let a = (start(&first), cat);
                    let (b, cat) = match with_part {
                        false => (
                            start(&second),
                            place(second.overlay.enabled) + "/on/the/way",
                        ),
                        true => {
                            let other = with_base(part.clone(), dir, "other");
                            (start(&other), "/part/the/way".to_owned())
                        }
                    };
                    let b = (b, format!("cat {cat}/content"));
                    let ((ends, _), (stays, cat)) = if first_ends_first { (a, b) } else { (b, a) };
                    ends.close().unwrap();
                    assert_eq!(sh(&stays, &cat), "x");
                    stays.close().unwrap();
                    assert_eq!(names(&dir.join("outer")), ["kept"]);
                }
            }
        }
    });
}

#[test]
fn what_another_base_removes_while_a_container_starts_is_made_anew() {
    isolated(|dir| {
        prepare(dir);
        let way = dir.join("outer/on/the/way");
        start(&nested(dir, "first", true)).close().unwrap();
        fs::create_dir_all(&way).unwrap();
        // As the end of a container of another base, between its two steps.
        let removing = fs::File::open(&way).unwrap();
        rustix::fs::flock(&removing, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut starter = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                &beside("a_start_in_another_process"),
                "--nocapture",
            ])
            .env(STARTER, dir)
            .spawn()
            .unwrap();
        let descriptors = format!("/proc/{}/fd", starter.id());
        let has_opened = || {
            let mut links = fs::read_dir(&descriptors).unwrap();
            links.any(|link| {
                fs::read_link(link.unwrap().path()).is_ok_and(|to| to.ends_with("on/the/way"))
            })
        };
        while !has_opened() {
            assert!(starter.try_wait().unwrap().is_none(), "it did not wait");
        }
        for made in [&way, &dir.join("outer/on/the"), &dir.join("outer/on")] {
            fs::remove_dir(made).unwrap();
        }
        drop(removing);
        assert!(starter.wait().unwrap().success());
        assert_eq!(names(&dir.join("outer")), ["kept"]);
    });
}

/// The directory of the test that starts a container in another process.
const STARTER: &str = "REAPER_OVERLAY_TEST_STARTER";

#[test]
fn a_start_in_another_process() {
    let Some(dir) = std::env::var_os(STARTER) else {
        return;
    };
    let session = start(&nested(Path::new(&dir), "starter", true));
    let cat = format!("cat {}/on/the/way/content", place(true));
    assert_eq!(sh(&session, &cat), "x");
    session.close().unwrap();
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
