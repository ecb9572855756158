//! The isolations that show the host itself.

mod common;

use std::{fs, path::Path};

use common::*;
use reaper_overlay::{
    Configured, Error, FilesystemIsolation, HostFilesystem, ReadOnlyHost, Session, ViewRequest,
};
use reaper_spec::{Mount, OverlayScope};

fn volume(request: &mut ViewRequest, from: &Path, to: &Path) {
    request.mounts.push(Mount {
        destination: to.to_owned(),
        typ: Some("bind".to_owned()),
        source: Some(from.to_owned()),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
    });
}

#[test]
fn disabled_overlay_runs_in_host_mount_namespace() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        request.overlay.enabled = false;
        let session = Session::open(&Configured::default(), &request).unwrap();
        let own = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        assert_eq!(
            sh(&session, "readlink /proc/self/ns/mnt"),
            own.to_str().unwrap()
        );
        sh(&session, &format!("touch {}/written", dir.display()));
        assert!(dir.join("written").exists());
        assert!(!dir.join("base").exists());
    });
}

#[test]
fn volumes_without_overlay_are_private_to_the_container() {
    isolated(|dir| {
        for name in ["data", "place"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("data/content"), "x").unwrap();
        let before = mount_table(&dir.join("base"));
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &dir.join("data"), &dir.join("place"));
        let session = Session::open(&HostFilesystem, &request).unwrap();
        let place = dir.join("place");
        let place = place.display();
        assert_eq!(sh(&session, &format!("cat {place}/content")), "x");
        assert!(
            !attempt(&session, &format!("touch {place}/new"))
                .status
                .success()
        );
        assert!(!dir.join("place/content").exists());
        assert_eq!(mount_table(&dir.join("base")), before);
        session.close().unwrap();

        fs::remove_dir(dir.join("place")).unwrap();
        fs::write(dir.join("place"), "").unwrap();
        let error = HostFilesystem.prepare(&request).err().unwrap();
        assert!(matches!(error, Error::MountKind { .. }), "{error}");
        assert!(!dir.join("base").exists(), "there was nothing to count");
    });
}

#[test]
fn a_destination_on_the_bare_host_is_where_it_leads() {
    isolated(|dir| {
        fs::create_dir_all(dir.join("data/sub")).unwrap();
        fs::write(dir.join("data/sub/content"), "x").unwrap();
        std::os::unix::fs::symlink("/proc", dir.join("kernel")).unwrap();
        let mut denied = request(dir, "a", OverlayScope::Node);
        volume(&mut denied, &dir.join("data"), &dir.join("kernel/sys"));
        let error = HostFilesystem.prepare(&denied).err().unwrap();
        assert!(
            matches!(&error, Error::MountDestination { destination } if *destination == Path::new("/proc/sys")),
            "{error}"
        );
        // The host has the inner one's mount point, and the volume around it has none.
        fs::create_dir_all(dir.join("place/inner")).unwrap();
        fs::create_dir(dir.join("outer")).unwrap();
        std::os::unix::fs::symlink("place", dir.join("link")).unwrap();
        let mut nested = request(dir, "b", OverlayScope::Node);
        volume(&mut nested, &dir.join("outer"), &dir.join("link"));
        volume(&mut nested, &dir.join("data"), &dir.join("place/inner"));
        let session = Session::open(&HostFilesystem, &nested).unwrap();
        let content = format!("cat {}/inner/sub/content", dir.join("place").display());
        assert_eq!(sh(&session, &content), "x");
        session.close().unwrap();
        assert_eq!(fs::read_dir(dir.join("outer")).unwrap().count(), 0);
    });
}

#[test]
fn mount_points_without_overlay_last_until_their_last_user() {
    isolated(|dir| {
        fs::create_dir(dir.join("data")).unwrap();
        fs::write(dir.join("data/content"), "x").unwrap();
        fs::write(dir.join("file"), "y").unwrap();
        let of = |id: &str| {
            let mut request = request(dir, id, OverlayScope::Node);
            request.overlay.enabled = false;
            volume(&mut request, &dir.join("data"), &dir.join("made/deep"));
            volume(&mut request, &dir.join("file"), &dir.join("made/file"));
            request
        };
        let open = |id: &str| Session::open(&Configured::default(), &of(id)).unwrap();
        let made = dir.join("made");
        let cat = format!("cat {0}/deep/content {0}/file", made.display());
        let (a, b) = (open("a"), open("b"));
        assert_eq!(sh(&a, &cat), "xy");
        let table = mount_table(&dir.join("base"));
        let seen = |line: &String| line.contains(made.to_str().unwrap());
        assert!(!table.iter().any(seen), "nothing is guarded: {table:?}");
        a.close().unwrap();
        assert_eq!(sh(&b, &cat), "xy");
        b.close().unwrap();
        assert!(!made.exists());

        // One whose monitor was killed, and one that was made with the overlay on.
        make_and_lose(|| open("killed"));
        Configured::default().cleanup(&of("killed")).unwrap();
        assert!(!made.exists());
        Configured::default().cleanup(&of("nobody")).unwrap();

        // What others keep there is theirs.
        let c = open("c");
        fs::write(made.join("deep/kept"), "").unwrap();
        c.close().unwrap();
        assert!(made.join("deep/kept").exists());
    });
}

/// Any process that may read a directory can lock it.
#[test]
fn a_mount_point_that_another_program_keeps_locked_is_used_nevertheless() {
    isolated(|dir| {
        fs::create_dir_all(dir.join("data")).unwrap();
        fs::write(dir.join("data/content"), "x").unwrap();
        let place = dir.join("place");
        let of = |id: &str| {
            let mut request = request(dir, id, OverlayScope::Node);
            request.overlay.enabled = false;
            volume(&mut request, &dir.join("data"), &place);
            request
        };
        // One that a Reaper has made, and that is removed with its last user.
        fs::create_dir(&place).unwrap();
        let mark = "trusted.reaper.mount-point";
        rustix::fs::setxattr(&place, mark, b"1", rustix::fs::XattrFlags::empty()).unwrap();
        let file = fs::File::open(&place).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let begin = std::time::Instant::now();
        let session = Session::open(&Configured::default(), &of("second")).unwrap();
        // A lock of Reaper's own is waited for a minute.
        assert!(begin.elapsed() < std::time::Duration::from_secs(30));
        let content = format!("cat {}/content", place.display());
        assert_eq!(sh(&session, &content), "x");
        session.close().unwrap();
    });
}

#[test]
fn mount_points_are_counted_across_overlay_and_bare_host() {
    isolated(|dir| {
        fs::create_dir(dir.join("data")).unwrap();
        let name = format!("reaper-test-{}", std::process::id());
        let place = Path::new("/run").join(name);
        let of = |id: &str, overlay: bool| {
            let mut request = request(dir, id, OverlayScope::Node);
            request.overlay.enabled = overlay;
            volume(&mut request, &dir.join("data"), &place);
            Session::open(&Configured::default(), &request).unwrap()
        };
        let (over, bare) = (of("over", true), of("bare", false));
        over.close().unwrap();
        assert!(place.exists(), "somebody still needs it");
        let over = of("again", true);
        bare.close().unwrap();
        assert!(place.exists());
        over.close().unwrap();
        assert!(!place.exists());
    });
}

#[test]
fn read_only_host_is_writable_only_at_listed_paths() {
    isolated(|dir| {
        fs::create_dir_all(dir.join("open/deep")).unwrap();
        mount_tmpfs(&dir.join("other"));
        let isolation = ReadOnlyHost::new(vec![dir.join("open"), dir.join("open/deep")]);
        let session = Session::open(&isolation, &request(dir, "a", OverlayScope::Node)).unwrap();
        for refused in [
            dir.to_owned(),
            dir.join("other"),
            "/etc".into(),
            "/usr".into(),
        ] {
            let output = attempt(&session, &format!("touch {}/x", refused.display()));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                said.contains("Read-only file system"),
                "{refused:?}: {said}"
            );
        }
        sh(
            &session,
            &format!(
                "touch {0}/open/x {0}/open/deep/y; echo >/dev/null",
                dir.display()
            ),
        );
        assert!(dir.join("open/deep/y").exists());
        fs::write(dir.join("other/host"), "the host still writes").unwrap();
        let missing = ReadOnlyHost::new(vec![dir.join("nowhere")]);
        let error = missing
            .prepare(&request(dir, "b", OverlayScope::Node))
            .err()
            .unwrap();
        assert!(error.to_string().contains("nowhere"));
    });
}
