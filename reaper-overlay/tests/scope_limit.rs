//! A limit for each scope: who fills one gets ENOSPC, and no one else does.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::*;
use reaper_overlay::{Error, FilesystemIsolation, Overlays, Session, SharedOverlay, ViewRequest};
use reaper_spec::{Mount, OverlayScope};
use rustix::mount::{MountFlags, mount};

const LIMIT: u64 = 1 << 20;

fn limited(dir: &Path, id: &str, scope: OverlayScope) -> ViewRequest {
    let mut request = request(dir, id, scope);
    request.overlay.size_per_scope = Some(LIMIT);
    request
}

/// Writes until nothing fits any more; returns what the program said.
fn fill(session: &Session) -> String {
    let output = attempt(session, "LC_ALL=C cat /dev/zero >/root/fill");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

fn limit_of(request: &ViewRequest) -> Option<u64> {
    let (overlays, scope) = overlays(request);
    overlays.inspect(&scope).unwrap().unwrap().limit
}

/// The filesystems that are mounted for scopes.
fn mounted(dir: &Path) -> Vec<PathBuf> {
    let mounts = reaper_overlay::mountinfo::read().unwrap();
    let points = mounts.into_iter().map(|mount| mount.mount_point);
    points
        .filter(|at| at.starts_with(dir.join("base/scopes")))
        .collect()
}

#[test]
fn who_fills_a_scope_takes_no_space_from_others() {
    isolated(|dir| {
        let request = limited(dir, "full", OverlayScope::Container);
        let full = open(&request);
        let other = open(&limited(dir, "other", OverlayScope::Container));
        assert!(fill(&full).contains("No space left on device"));
        let (overlays, scope) = overlays(&request);
        let used = overlays.disk_usage(&scope, &mut |_| ()).unwrap().bytes;
        assert!(used <= LIMIT && used > LIMIT / 2, "{used}");
        assert_eq!(limit_of(&request), Some(LIMIT));

        sh(&other, "head -c 500000 /dev/zero >/root/more");
        // Its members come and go: what Reaper writes of them lies elsewhere.
        let mut third = limited(dir, "third", OverlayScope::Container);
        third.mounts.push(Mount {
            destination: "/new/place".into(),
            typ: Some("bind".to_owned()),
            source: Some("/etc".into()),
            options: vec!["bind".to_owned()],
        });
        let third = open(&third);
        sh(
            &third,
            "test -e /new/place/passwd && head -c 500000 /dev/zero >/root/more",
        );
        for session in [full, other, third] {
            session.close().unwrap();
        }
        for info in overlays.list().unwrap() {
            overlays.remove(&info.scope).unwrap();
        }
        assert_eq!(mounted(dir), Vec::<PathBuf>::new());
        for left in ["scopes", "trash", "live/scopes", "live/records/scopes"] {
            let left: Vec<_> = fs::read_dir(dir.join("base").join(left)).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

#[test]
fn members_of_a_scope_share_its_limit_and_it_outlives_them() {
    isolated(|dir| {
        let of = |id| limited(dir, id, OverlayScope::Node);
        let first = open(&of("first"));
        let second = open(&of("second"));
        fill(&first);
        assert!(
            !attempt(&second, "echo more >/root/more && cat /root/more")
                .status
                .success()
        );
        for session in [first, second] {
            session.close().unwrap();
        }
        // It is mounted afresh, over what was written before.
        let third = open(&of("third"));
        assert!(
            !attempt(&third, "head -c 100000 /dev/zero >/root/more")
                .status
                .success()
        );
        sh(
            &third,
            "rm /root/fill; head -c 100000 /dev/zero >/root/more",
        );
        let (overlays, scope) = overlays(&of("third"));
        assert_eq!(shown(&overlays, &scope).len(), 1);
        third.close().unwrap();
    });
}

#[test]
fn a_changed_limit_is_that_of_new_scopes_and_of_those_that_are_reset() {
    isolated(|dir| {
        let mut request = request(dir, "member", OverlayScope::Node);
        let warnings = |request: &ViewRequest| {
            let mut view = SharedOverlay::new().prepare(request).unwrap();
            let warnings = view.warnings().join("\n");
            view.release().unwrap();
            warnings
        };
        assert!(!warnings(&request).contains("limit"));
        assert_eq!(limit_of(&request), None);
        request.overlay.size_per_scope = Some(LIMIT);
        assert!(warnings(&request).contains("has none"));
        assert_eq!(limit_of(&request), None);

        let (overlays, scope) = overlays(&request);
        for limit in [LIMIT, 2 * LIMIT] {
            request.overlay.size_per_scope = Some(limit);
            overlays.reset(&scope).unwrap();
            assert!(!warnings(&request).contains("has none"));
            assert_eq!(limit_of(&request), Some(limit));
            request.overlay.size_per_scope = Some(8 * LIMIT);
            warnings(&request);
            assert_eq!(
                limit_of(&request),
                Some(limit),
                "it has what it was made with"
            );
        }
        request.overlay.size_per_scope = None;
        overlays.reset(&scope).unwrap();
        warnings(&request);
        assert_eq!(limit_of(&request), None);
        assert_eq!(mounted(dir), Vec::<PathBuf>::new());
    });
}

#[test]
fn what_a_killed_maker_has_mounted_is_replaced() {
    isolated(|dir| {
        open(&limited(dir, "first", OverlayScope::Container))
            .close()
            .unwrap();
        let request = limited(dir, "second", OverlayScope::Container);
        let at = dir.join("base/scopes/container-second");
        fs::create_dir(&at).unwrap();
        mount(
            "reaper-overlay",
            &at,
            "tmpfs",
            MountFlags::empty(),
            c"size=4m",
        )
        .unwrap();
        let second = open(&request);
        assert_eq!(limit_of(&request), Some(LIMIT));
        assert_eq!(mounted(dir).iter().filter(|point| **point == at).count(), 1);
        second.close().unwrap();
    });
}

#[test]
fn a_removed_scope_takes_no_memory_though_its_mount_was_copied() {
    isolated(|dir| {
        let request = limited(dir, "member", OverlayScope::Node);
        let session = open(&request);
        sh(&session, "head -c 100000 /dev/zero >/root/more");
        // As systemd does for a service with PrivateTmp=yes.
        let mut copy = Command::new("unshare")
            .args([
                "--mount",
                "--propagation=private",
                "sh",
                "-c",
                "echo ready; exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(copy.stdout.as_mut().unwrap(), &mut ready).unwrap();
        session.close().unwrap();
        let (overlays, scope) = overlays(&request);
        let table = format!("/proc/{}/mountinfo", copy.id());
        let filesystems = || {
            let table = fs::read_to_string(&table).unwrap();
            let ours = table
                .lines()
                .filter(|line| line.contains(" - tmpfs reaper-overlay "));
            // Newer kernels say more of a tmpfs.
            let limited = ours.filter(|line| line.contains(",size=1024k"));
            limited.count()
        };
        assert_eq!(filesystems(), 1);
        overlays.remove(&scope).unwrap();
        let left = filesystems();
        drop(copy.stdin.take());
        assert!(copy.wait().unwrap().success());
        assert_eq!(left, 0);
    });
}

#[test]
fn a_limit_that_cannot_be_kept_is_refused_before_anything_is_made() {
    isolated(|dir| {
        let refusal = |request: &ViewRequest| {
            let refused = SharedOverlay::new().prepare(request).map(drop);
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::ScopeLimit { .. }), "{error}");
            assert!(!request.overlay.base.exists());
            error.to_string()
        };
        let mut both = limited(dir, "both", OverlayScope::Node);
        both.overlay.size = Some(LIMIT);
        assert!(refusal(&both).contains("unset one of the two"));

        mount_ext4(&dir.join("image"), &dir.join("disk"));
        let mut on_disk = limited(dir, "disk", OverlayScope::Node);
        on_disk.overlay.base = dir.join("disk/base");
        assert!(refusal(&on_disk).contains("prjquota"));
        // What is there can be looked at nevertheless.
        assert_eq!(Overlays::new(&on_disk.overlay).list().unwrap().len(), 0);
    });
}
