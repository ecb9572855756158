//! The volumes of an ordinary user.

mod common;

use std::{
    fs,
    os::unix::{fs::chown, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{user::*, *};
use reaper_overlay::{Error, FilesystemIsolation, RootfsMount, SharedOverlay, ViewRequest};
use reaper_spec::{ImageMode, Mount, OverlayScope};

fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        typ: Some(kind.to_owned()),
        source: None,
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

fn volume(request: &mut ViewRequest, source: impl Into<PathBuf>, to: &str, options: &[&str]) {
    request.mounts.push(Mount {
        source: Some(source.into()),
        ..mount(to, "bind", options)
    });
}

/// A directory of the user's with one file.
fn filled(dir: &Path, text: &str) {
    fs::create_dir(dir).unwrap();
    chown(dir, Some(USER), Some(USER)).unwrap();
    owned(&dir.join("content"), text);
}

fn group(home: &Path, id: &str) -> ViewRequest {
    of(home, id, "group:g".parse().unwrap())
}

#[test]
fn rootless_volumes_of_all_kinds_mount_and_clean_up() {
    as_user(
        |home| {
            filled(&home.join("data"), "host");
            filled(&home.join("mine"), "mine");
            owned(&home.join("file"), "one file");
        },
        |home| {
            let _listener = UnixListener::bind(home.join("socket")).unwrap();
            let mut request = of(home, "a", OverlayScope::Container);
            volume(
                &mut request,
                home.join("data"),
                "/made/on/the/way",
                &["rbind"],
            );
            volume(
                &mut request,
                home.join("file"),
                "/etc/one-file",
                &["bind", "ro"],
            );
            volume(&mut request, home.join("socket"), "/made/socket", &["bind"]);
            volume(&mut request, "/dev/null", "/made/null", &["bind"]);
            volume(
                &mut request,
                home.join("file"),
                "/made/on/the/way/nested/file",
                &["bind"],
            );
            let at_home = home.join("mine/tmp");
            request.mounts.push(mount(
                at_home.to_str().unwrap(),
                "tmpfs",
                &["nosuid", "size=64k", "mode=0700"],
            ));
            // What engines mount by default is there already.
            request.mounts.push(mount("/proc", "proc", &[]));
            let session = open(&request);
            let script = "cat /made/on/the/way/content /etc/one-file; test -S /made/socket; \
                          echo x >/made/null; echo written >/made/on/the/way/new; \
                          cat /made/on/the/way/nested/file";
            assert_eq!(sh(&session, script), "hostone fileone file");
            assert_eq!(fs::read(home.join("data/new")).unwrap(), b"written\n");
            assert!(!attempt(&session, "echo x >/etc/one-file").status.success());
            let tmpfs = at_home.display();
            sh(&session, &format!("echo x >{tmpfs}/x"));
            let full = format!("head -c 100000 /dev/zero >{tmpfs}/y");
            assert!(
                !attempt(&session, &full).status.success(),
                "its size is kept"
            );
            session.close().unwrap();
            assert!(!home.join("data/nested").exists());
            assert_eq!(changes(&request), Vec::<String>::new());
            remove(&request);
        },
    );
}

#[test]
fn rootless_volumes_are_visible_only_to_container_and_its_execs() {
    as_user(
        |home| filled(&home.join("data"), "secret"),
        |home| {
            let witness = open(&group(home, "witness"));
            let mut with = group(home, "with");
            volume(&mut with, home.join("data"), "/data", &["rbind"]);
            let session = open(&with);
            assert_eq!(sh(&session, "cat /data/content"), "secret");
            let table = "grep -c ' /data ' /proc/self/mountinfo || true";
            // The place is guarded, in both; on it is the volume, in one.
            assert_eq!(sh(&session, table), "2");
            assert_eq!(sh(&witness, table), "1");
            assert_eq!(sh(&witness, "ls /data"), "");
            for damage in ["rmdir /data", "mv /data /elsewhere"] {
                assert!(!attempt(&witness, damage).status.success(), "{damage}");
            }
            session.close().unwrap();
            assert!(!attempt(&witness, "test -e /data").status.success());
            witness.close().unwrap();
            remove(&with);
        },
    );
}

#[test]
fn same_id_in_two_state_roots_has_separate_mount_points() {
    as_user(
        |home| filled(&home.join("data"), "x"),
        |home| {
            let of_root = |root: &str| {
                let mut request = group(home, "same").with_state_root(Path::new(root));
                volume(&mut request, home.join("data"), "/data", &["rbind"]);
                request
            };
            let one = open(&of_root("/srv/one"));
            let two = open(&of_root("/srv/two"));
            one.close().unwrap();
            assert!(!attempt(&two, "rmdir /data").status.success(), "in use");
            assert_eq!(sh(&two, "cat /data/content"), "x");
            two.close().unwrap();
            let after = open(&group(home, "after"));
            assert!(!attempt(&after, "test -e /data").status.success());
            after.close().unwrap();
            remove(&of_root("/srv/one"));
        },
    );
}

#[test]
fn a_destination_may_be_a_symlink() {
    as_user(
        |home| {
            filled(&home.join("data"), "x");
            filled(&home.join("real"), "below");
            std::os::unix::fs::symlink("real", home.join("link")).unwrap();
        },
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            let link = home.join("link/deep").display().to_string();
            volume(&mut request, home.join("data"), &link, &["rbind"]);
            let session = open(&request);
            let real = home.join("real/deep/content").display().to_string();
            assert_eq!(sh(&session, &format!("cat {real}")), "x");
            session.close().unwrap();
            assert_eq!(changes(&request), Vec::<String>::new());
            remove(&request);
        },
    );
}

#[test]
fn rro_makes_mounts_below_read_only_and_ro_does_not() {
    as_user(
        |home| {
            filled(&home.join("data"), "x");
            mount_tmpfs(&home.join("data/below"));
            chown(home.join("data/below"), Some(USER), Some(USER)).unwrap();
        },
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            let data = home.join("data");
            volume(&mut request, &data, "/top", &["rbind", "ro"]);
            volume(&mut request, &data, "/all", &["rbind", "rro"]);
            // Root inside may try to change that.
            request.user = Some((0, 0));
            let session = open(&request);
            assert!(!attempt(&session, "touch /top/x").status.success());
            sh(&session, "touch /top/below/x");
            assert!(!attempt(&session, "touch /all/x").status.success());
            assert!(!attempt(&session, "touch /all/below/y").status.success());
            session.close().unwrap();
            remove(&request);
        },
    );
}

#[test]
fn later_host_mounts_propagate_only_into_rslave_volumes() {
    isolated(|dir| {
        let (home, state, data) = (dir.join("home"), dir.join("state"), dir.join("data"));
        for dir in [&home, &state, &data] {
            fs::create_dir(dir).unwrap();
            chown(dir, Some(USER), Some(USER)).unwrap();
        }
        fs::create_dir(data.join("later")).unwrap();
        bind(&data, &data);
        // A process of root's in the same mounts, which acts when it is told to.
        let mut root = Command::new("sh")
            .args(["-c", "cat && mount -t tmpfs x later && touch later/new"])
            .current_dir(&data)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        become_user();
        if !users_have_overlays() {
            drop(root.stdin.take());
            root.wait().unwrap();
            return assert_refused_by_name(&home);
        }
        let mut request = of(&home, "a", OverlayScope::Container);
        volume(&mut request, &data, "/slave", &["rbind", "rslave"]);
        volume(&mut request, &data, "/private", &["rbind"]);
        let session = open(&request);
        drop(root.stdin.take());
        assert!(root.wait().unwrap().success());
        sh(
            &session,
            "test -e /slave/later/new; ! test -e /private/later/new",
        );
        session.close().unwrap();
        remove(&request);
    });
}

#[test]
fn mounts_refused_without_root_name_path_and_reason() {
    as_user(
        |home| {
            filled(&home.join("data"), "x");
            mount_tmpfs(&home.join("data/below"));
            mount_tmpfs(&home.join("fixed"));
            rustix::mount::mount_remount(
                home.join("fixed"),
                rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY,
                c"",
            )
            .unwrap();
        },
        |home| {
            let refusal = |mount: Mount| {
                let mut request = of(home, "a", OverlayScope::Container);
                request.mounts.push(mount);
                let error = SharedOverlay::new().prepare(&request).err().unwrap();
                let scopes = request.overlay.base.join("scopes");
                assert_eq!(fs::read_dir(scopes).unwrap().count(), 0, "{error}");
                assert!(matches!(error, Error::NeedsRoot { .. }), "{error}");
                error.to_string()
            };
            let bound = |from: &str, options: &[&str]| {
                let mut request = of(home, "a", OverlayScope::Container);
                volume(&mut request, home.join(from), "/data", options);
                request.mounts.remove(0)
            };
            let mut refused = vec![
                (bound("data", &["rbind", "rshared"]), "propagation"),
                (bound("data", &["bind"]), "rbind"),
                (mount("/data", "ext4", &[]), "ext4"),
            ];
            // Where options come when the volume is mounted, that is when they are refused.
            if !kernel::lacks_attributes() {
                refused.push((bound("fixed", &["rbind", "rw"]), "rw"));
            }
            for (mount, reason) in refused {
                let said = refusal(mount);
                assert!(said.contains("/data") && said.contains(reason), "{said}");
            }
        },
    );
}

#[test]
fn failed_volume_mount_leaves_no_scope() {
    as_user(
        |home| filled(&home.join("data"), "x"),
        |home| {
            for (from, to) in [
                ("data", "/etc/hostname/below"),
                ("data", "/root/below"),
                ("missing", "/data"),
                ("data/content", "/srv"),
            ] {
                let mut request = of(home, "a", OverlayScope::Container);
                volume(&mut request, home.join(from), to, &["rbind"]);
                let error = SharedOverlay::new().prepare(&request).err().unwrap();
                assert!(!matches!(error, Error::HelperDied { .. }), "{error}");
                let left = fs::read_dir(request.overlay.base.join("scopes")).unwrap();
                assert_eq!(left.count(), 0, "{to}");
            }
        },
    );
}

#[test]
fn next_member_removes_mount_points_of_killed_monitor() {
    as_user(
        |home| filled(&home.join("data"), "x"),
        |home| {
            let isolation = SharedOverlay::new();
            let mut killed = group(home, "killed");
            volume(&mut killed, home.join("data"), "/left/data", &["rbind"]);
            // As if the monitor were gone: its memory is lost, and nobody finds its namespaces.
            let kill = || {
                std::mem::forget(isolation.prepare(&killed).unwrap());
                let marker = "base/live/scopes/group-g/members/killed";
                let state = home.with_file_name("state");
                fs::remove_file(state.join(marker)).unwrap();
            };
            kill();
            lose_locks(&home.with_file_name("state"));
            // Nobody is in the scope, so there is nowhere to remove it.
            isolation.cleanup(&killed).unwrap();
            assert_eq!(changes(&killed), ["A /left", "A /left/data"]);
            let next = open(&group(home, "next"));
            assert!(!attempt(&next, "test -e /left").status.success());
            // With a member there is.
            kill();
            sh(&next, "test -d /left/data");
            isolation.cleanup(&killed).unwrap();
            assert!(!attempt(&next, "test -e /left").status.success());
            next.close().unwrap();
        },
    );
}

#[test]
fn an_image_is_shown_at_its_own_path() {
    as_user(
        |home| filled(&home.join("image"), "of the image"),
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            request.image = ImageMode::MountAt;
            request.rootfs = Some(home.join("image"));
            let session = open(&request);
            let shown = sh(&session, "cat $REAPER_IMAGE_ROOT/content");
            assert_eq!(shown, "of the image");
            let write = attempt(&session, "touch $REAPER_IMAGE_ROOT/new");
            assert!(!write.status.success());
            session.close().unwrap();
            request.rootfs_mounts.push(RootfsMount::default());
            let error = SharedOverlay::new().prepare(&request).err().unwrap();
            assert!(matches!(error, Error::NeedsRoot { .. }), "{error}");
            remove(&request);
        },
    );
}
