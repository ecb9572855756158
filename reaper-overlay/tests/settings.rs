//! What the node's configuration says takes effect.

mod common;

use std::{
    fs,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
    time::Duration,
};

use common::*;
use reaper_overlay::{Configured, Error, FilesystemIsolation, Overlays, Session, ViewRequest};
use reaper_spec::OverlayScope;

/// The name of a socket that [`one_client`] connects to.
const SOCKET: &str = "REAPER_TEST_SOCKET";

fn configured(request: &ViewRequest) -> Session {
    Session::open(&Configured::default(), request).unwrap()
}

/// Connects to a socket, in a process of its own that runs in a view.
#[test]
fn one_client() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        UnixStream::connect(socket).unwrap();
    }
}

fn can_connect(session: &Session, socket: &Path) -> bool {
    let mut client = Command::new(std::env::current_exe().unwrap());
    client
        .args(["--exact", "one_client", "--test-threads=1"])
        .env(SOCKET, socket)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    session.spawn(client).unwrap().wait().unwrap().success()
}

#[test]
fn host_paths_show_the_hosts_files_directly() {
    isolated(|dir| {
        // On the file system of the root's layer, and on one of its own.
        mount_tmpfs(&dir.join("disk"));
        fs::create_dir(dir.join("disk/shown")).unwrap();
        std::os::unix::fs::symlink("disk/shown", dir.join("link")).unwrap();
        let (shown, other) = (dir.join("shown.sock"), dir.join("other.sock"));
        let _listeners = [&shown, &other].map(|path| UnixListener::bind(path).unwrap());
        let mut request = request(dir, "a", OverlayScope::Node);
        let missing = dir.join("missing");
        request.overlay.host_paths = vec![shown.clone(), dir.join("link"), missing.clone()];
        let session = configured(&request);
        assert!(can_connect(&session, &shown));
        assert!(!can_connect(&session, &other));
        let disk = dir.join("disk");
        let disk = disk.display();
        sh(&session, &format!("touch {disk}/shown/yes {disk}/no"));
        assert!(dir.join("disk/shown/yes").exists());
        assert!(!dir.join("disk/no").exists());
        let warnings = session.warnings();
        let named = |warning: &String| warning.ends_with(missing.to_str().unwrap());
        assert!(warnings.iter().any(named), "{warnings:?}");
    });
}

#[test]
fn unprotectable_mount_is_refused_unless_listed_as_unprotected() {
    isolated(|dir| {
        fs::create_dir(dir.join("disk")).unwrap();
        let disk = dir.join("disk");
        let disk = disk.to_str().unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        let session = configured(&request);
        sh(&session, &format!("rmdir {disk}; echo kept >/kept"));
        session.close().unwrap();
        // What lies on it now has no place in the view.
        mount_tmpfs(&dir.join("disk"));
        let refused = Configured::default().prepare(&request).err().unwrap();
        assert!(
            matches!(&refused, Error::Unprotected { path, .. } if *path == dir.join("disk")),
            "{refused}"
        );
        let message = refused.to_string();
        assert!(
            message.starts_with(&format!("{disk} cannot be protected: ")),
            "{message}"
        );

        request.overlay.unprotected = vec![dir.join("disk")];
        let session = configured(&request);
        assert_eq!(
            sh(&session, &format!("cat /kept; test -e {disk} || echo none")),
            "kept\nnone"
        );
        let warnings = session.warnings();
        let said = |warning: &String| warning.contains("not in the view") && warning.contains(disk);
        assert!(warnings.iter().any(said), "{warnings:?}");
    });
}

#[test]
fn mount_refused_by_overlay_is_read_only_with_one_warning() {
    isolated(|dir| {
        fs::write(dir.join("file"), "the node's").unwrap();
        fs::write(dir.join("bound"), "").unwrap();
        bind(&dir.join("file"), &dir.join("bound"));
        let session = configured(&request(dir, "a", OverlayScope::Node));
        let bound = dir.join("bound");
        let bound = bound.to_str().unwrap();
        assert_eq!(sh(&session, &format!("cat {bound}")), "the node's");
        let refused = attempt(&session, &format!("echo x >{bound}"));
        let refused = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.contains("Read-only file system"), "{refused}");
        let warnings = session.warnings();
        let said = |warning: &String| {
            warning.starts_with("overlay node: read-only") && warning.contains(bound)
        };
        assert!(warnings.iter().any(said), "{warnings:?}");
        let second = configured(&request(dir, "b", OverlayScope::Node));
        assert_eq!(second.warnings(), Vec::<String>::new());
    });
}

#[test]
fn joining_scope_warns_about_host_mounts_changed_below() {
    isolated(|dir| {
        mount_tmpfs(&dir.join("disk"));
        let first = configured(&request(dir, "a", OverlayScope::Node));
        mount_tmpfs(&dir.join("disk"));
        let second = configured(&request(dir, "b", OverlayScope::Node));
        let warnings = second.warnings();
        let disk = dir.join("disk");
        let said = |warning: &String| {
            warning.contains("changed below") && warning.contains(disk.to_str().unwrap())
        };
        assert!(warnings.iter().any(said), "{warnings:?}");
        drop((first, second));
    });
}

#[test]
fn configured_scope_is_removed_with_its_last_member() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Group("g".to_owned()));
        let scope = dir.join("base/scopes/group-g");
        configured(&request).close().unwrap();
        assert!(scope.exists());
        request.overlay.remove_with_last = true;
        configured(&request).close().unwrap();
        assert!(!scope.exists());
        let trash = fs::read_dir(dir.join("base/trash")).unwrap();
        assert_eq!(trash.count(), 0, "nothing of it is left");
    });
}

#[test]
fn unused_scopes_are_kept_as_the_configuration_says() {
    isolated(|dir| {
        let group = |name: &str| request(dir, name, OverlayScope::Group(name.to_owned()));
        for name in ["a", "b", "c"] {
            configured(&group(name)).close().unwrap();
        }
        let used = configured(&group("used"));
        // What a process that was killed has not finished.
        fs::create_dir_all(dir.join("base/trash/1.1/upper")).unwrap();
        let isolation = Configured::default();
        let mut last = group("c");
        assert!(isolation.gc(&last).is_none(), "nothing is asked for");
        last.overlay.keep.max_age = Some(Duration::from_secs(3600));
        last.overlay.keep.max_count = Some(1);
        isolation.gc(&last).unwrap()().unwrap();
        let overlays = Overlays::new(&last.overlay);
        let names = || -> Vec<String> {
            let scopes = overlays.list().unwrap();
            scopes.iter().map(|info| info.scope.to_string()).collect()
        };
        assert_eq!(
            names(),
            ["group-c", "group-used"],
            "the last used one stays"
        );
        let trash = fs::read_dir(dir.join("base/trash")).unwrap();
        assert_eq!(trash.count(), 0);
        last.overlay.keep.max_age = Some(Duration::ZERO);
        isolation.gc(&last).unwrap()().unwrap();
        assert_eq!(names(), ["group-used"]);
        last.overlay.enabled = false;
        assert!(isolation.gc(&last).is_none());
        used.close().unwrap();
    });
}

/// One value of fsconfig(2) has at most 255 bytes.
#[test]
fn a_base_with_a_long_path_works() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Container);
        request.overlay.base = dir.join("b".repeat(120)).join("c".repeat(120));
        let session = open(&request);
        sh(&session, "echo new >/srv/file");
        assert_eq!(sh(&session, "cat /srv/file"), "new");
        session.close().unwrap();
        assert!(!Path::new("/srv/file").exists());
    });
}

/// Each of them lies in the other one's view, on a mount that the kernel lets nobody bind.
#[test]
fn configurations_with_different_bases_run_side_by_side() {
    isolated(|dir| {
        let mut other = request(dir, "other", OverlayScope::Node);
        other.overlay.base = dir.join("other");
        let first = open(&request(dir, "a", OverlayScope::Node));
        let second = open(&other);
        sh(&first, "echo secret >/srv/first");
        let look = |base: &str| format!("ls -A {}", dir.join(base).display());
        assert_eq!(sh(&second, &look("base")), "");
        assert_eq!(sh(&second, &look("other")), "");
        second.close().unwrap();
        first.close().unwrap();
        // On a disk, where the directory with the layers is no mount.
        mount_ext4(&dir.join("image"), &dir.join("disk"));
        let mut on_disk = request(dir, "kept", OverlayScope::Node);
        on_disk.overlay.base = dir.join("disk/base");
        let kept = open(&on_disk);
        sh(&kept, "echo secret >/srv/kept");
        other.overlay.scope = OverlayScope::Container;
        let third = open(&other);
        assert_eq!(sh(&third, &look("disk/base")), "");
        third.close().unwrap();
        kept.close().unwrap();
    });
}

#[test]
fn a_mount_over_the_base_is_named() {
    isolated(|dir| {
        let run = dir.join("run");
        fs::create_dir(&run).unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        request.overlay.base = run.join("reaper/overlay");
        let session = configured(&request);
        mount_tmpfs(&run);
        let refused = Configured::default().prepare(&request).err().unwrap();
        let text = refused.to_string();
        assert!(matches!(refused, Error::BaseCovered { .. }), "{text}");
        assert!(
            text.contains(&format!("mounted on {} ", run.display())),
            "{text}"
        );
        assert_eq!(
            fs::read_dir(&run).unwrap().count(),
            0,
            "nothing is made there"
        );
        rustix::mount::unmount(&run, rustix::mount::UnmountFlags::empty()).unwrap();
        configured(&request).close().unwrap();
        session.close().unwrap();
    });
}
