//! The overlay of an ordinary user.

mod common;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use common::{user::*, *};
use reaper_overlay::{
    ApplyMode, Error, FilesystemIsolation, Overlays, RootlessError, Scope, Session, SharedOverlay,
    ViewRequest,
};
use reaper_spec::OverlayScope;

#[test]
fn rootless_writes_stay_in_the_overlay() {
    as_user(
        |home| {
            owned(&home.join("mine"), "one");
            owned(&home.join("gone"), "x");
            let roots = home.with_file_name("roots");
            fs::create_dir(&roots).unwrap();
            fs::write(roots.join("file"), "root's").unwrap();
        },
        |home| {
            let node = home.parent().unwrap().to_owned();
            let before = [fingerprint(home), fingerprint(&node.join("roots"))];
            let request = of(home, "a", OverlayScope::Container);
            let session = open(&request);
            let script = format!(
                "cd {}; echo two >>mine; rm gone; mkdir -p new/dir; echo 3 >new/dir/file; \
                 ln mine new/link; chmod 600 mine; mv new newer; mknod newer/fifo p; \
                 echo mine >../roots/new; mv -f ../roots/new ../roots/file; cat ../roots/file; \
                 touch /etc/reaper-hello /tmp/reaper-hello; rm /etc/group; mkdir -p /usr/local/x",
                home.display()
            );
            assert_eq!(sh(&session, &script), "mine");
            // The same as outside: no rights, no other number.
            assert_eq!(sh(&session, "id -u; id -g"), format!("{USER}\n{USER}"));
            assert!(!attempt(&session, "cat /etc/shadow").status.success());
            assert!(!attempt(&session, "ls /root").status.success());
            let said = attempt(&session, "echo x >>/usr/lib/os-release").stderr;
            assert!(String::from_utf8_lossy(&said).contains("ermission denied"));
            session.close().unwrap();
            let after = [fingerprint(home), fingerprint(&node.join("roots"))];
            assert_eq!(after, before);
            assert!(!Path::new("/etc/reaper-hello").exists());
            let shown = changes(&request);
            let inside = |path: &str| home.join(path).display().to_string();
            let expected = [
                "A /etc/reaper-hello".to_owned(),
                "D /etc/group".to_owned(),
                "A /tmp/reaper-hello".to_owned(),
                "A /usr/local/x".to_owned(),
                format!("D {}", inside("gone")),
                format!("M {}", inside("mine")),
                format!("A {}", inside("newer")),
                format!("A {}", inside("newer/dir")),
                format!("M {}", inside("../roots/file").replace("home/../", "")),
            ];
            for change in &expected {
                assert!(shown.contains(change), "{change} in {shown:#?}");
            }
            // Not a directory that merely is the user's in the view.
            let known = |line: &String| {
                expected.contains(line) || line.starts_with(&format!("A {}", inside("newer/")))
            };
            assert!(shown.iter().all(known), "{shown:#?}");
            remove(&request);
        },
    );
}

#[test]
fn rootless_overlay_protects_mounts_below_directories() {
    const ODD: &str = "a b\n:,\\";
    as_user(
        |home| {
            for name in ["disk", "image", ODD, "other"] {
                fs::create_dir(home.join(name)).unwrap();
            }
            mount_tmpfs(&home.join("disk"));
            mount_tmpfs(&home.join(ODD));
            mount_ext4(&home.with_file_name("ext4"), &home.join("image"));
            fs::remove_dir(home.join("image/lost+found")).unwrap();
            fs::create_dir(home.join("disk/deeper")).unwrap();
            mount_tmpfs(&home.join("disk/deeper"));
            owned(&home.join("bound"), "host");
            owned(&home.join("place"), "");
            bind(&home.join("bound"), &home.join("place"));
            for name in ["disk", ODD, "image", "disk/deeper", "other"] {
                chown(home.join(name), Some(USER), Some(USER)).unwrap();
                owned(&home.join(name).join("file"), "host");
            }
            owned(&home.join("file"), "host");
            std::os::unix::fs::symlink("file", home.join("link")).unwrap();
        },
        |home| {
            let inside: Vec<PathBuf> = ["", "disk", ODD, "image", "disk/deeper", "other"]
                .iter()
                .map(|name| home.join(name))
                .collect();
            let before: Vec<_> = inside.iter().map(|dir| fingerprint(dir)).collect();
            let mounts = mount_table(Path::new("/nowhere"));
            let request = of(home, "a", OverlayScope::Container);
            let session = open(&request);
            for dir in &inside {
                let mut command = std::process::Command::new("sh");
                command
                    .args(["-c", "cat file; echo view >file; echo x >new; cat file new"])
                    .current_dir(dir)
                    .stdout(std::process::Stdio::piped());
                let output = session.spawn(command).unwrap().wait_with_output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                assert_eq!(text, "hostview\nx\n", "{dir:?}");
            }
            let place = home.join("place");
            assert_eq!(sh(&session, &format!("cat {}", place.display())), "host");
            let write = format!("echo x >{}", place.display());
            assert!(!attempt(&session, &write).status.success(), "a bound file");
            sh(&session, &format!("rm {}/link", home.display()));
            session.close().unwrap();
            let after: Vec<_> = inside.iter().map(|dir| fingerprint(dir)).collect();
            assert_eq!(after, before);
            assert_eq!(mount_table(Path::new("/nowhere")), mounts);
            let shown = changes(&request);
            for dir in &inside {
                for (kind, name) in [("M", "file"), ("A", "new")] {
                    let change = format!("{kind} {}", dir.join(name).display());
                    assert!(shown.contains(&change), "{change:?} in {shown:#?}");
                }
            }
            assert!(shown.contains(&format!("D {}", home.join("link").display())));
            assert_eq!(shown.len(), 2 * inside.len() + 1, "{shown:#?}");
            remove(&request);
        },
    );
}

#[test]
fn mounts_in_inaccessible_directories_do_not_block_prepare() {
    as_user(
        |home| {
            let closed = home.join("closed");
            fs::create_dir(&closed).unwrap();
            mount_tmpfs(&closed.join("disk"));
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        },
        |home| {
            let request = of(home, "a", OverlayScope::Container);
            let session = open(&request);
            let look = format!("ls {}/closed", home.display());
            assert!(!attempt(&session, &look).status.success());
            sh(&session, &format!("touch {}/new", home.display()));
            session.close().unwrap();
            assert!(!home.join("new").exists());
            remove(&request);
        },
    );
}

#[test]
fn rootless_scope_is_shared_only_by_its_members() {
    as_user(
        |_| {},
        |home| {
            let group = |id: &str| of(home, id, "group:g".parse().unwrap());
            let file = home.join("file").display().to_string();
            let a = open(&group("a"));
            let b = open(&group("b"));
            sh(&a, &format!("echo hello >{file}"));
            assert_eq!(sh(&b, &format!("cat {file}")), "hello");
            let other = of(home, "c", OverlayScope::Container);
            let c = open(&other);
            assert!(!attempt(&c, &format!("cat {file}")).status.success());
            let overlays = Overlays::new(&other.overlay);
            let scope = Scope::of(&group("a")).unwrap();
            assert!(matches!(
                overlays.remove(&scope),
                Err(Error::ScopeBusy { by, .. }) if by == ["a", "b"]
            ));
            let listed = overlays.list().unwrap();
            let info = listed.iter().find(|info| info.scope == scope).unwrap();
            assert!(info.mounted && info.locked && info.changed_below.is_empty());
            a.close().unwrap();
            let d = open(&group("d"));
            assert_eq!(
                sh(&d, &format!("cat {file}")),
                "hello",
                "the maker has left, and the scope is alive"
            );
            b.close().unwrap();
            d.close().unwrap();
            // Its mounts end with its last member, and what was written does not.
            let e = open(&group("e"));
            assert_eq!(sh(&e, &format!("cat {file}")), "hello");
            e.close().unwrap();
            c.close().unwrap();
            SharedOverlay::new().remove(&other).unwrap();
            remove(&group("a"));
        },
    );
}

#[test]
fn rootless_user_0_appears_as_root_without_privileges() {
    as_user(
        |home| owned(&home.join("mine"), "x"),
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            request.user = Some((0, 0));
            let session = open(&request);
            assert_eq!(sh(&session, "id -u; id -g"), "0\n0");
            let script = format!(
                "cd {}; install -o 0 -g 0 -m 755 mine /usr/local/bin/reaper-installed; \
                 stat -c %u:%g mine",
                home.display()
            );
            assert_eq!(sh(&session, &script), "0:0");
            for refused in [
                "cat /etc/shadow",
                "ls /root",
                "ls /proc/1/root/",
                "umount /etc",
                "umount -l /",
                "mount -o remount,rw /proc",
            ] {
                assert!(!attempt(&session, refused).status.success(), "{refused}");
            }
            session.close().unwrap();
            assert_eq!(changes(&request), ["A /usr/local/bin/reaper-installed"]);
            remove(&request);
        },
    );
}

#[test]
fn scope_with_mode_0_directories_is_removed_by_its_owner() {
    as_user(
        |_| {},
        |home| {
            let request = of(home, "a", OverlayScope::Container);
            let session = open(&request);
            let dir = home.join("closed").display().to_string();
            sh(
                &session,
                &format!("mkdir -p {dir}/in; chmod 0 {dir}/in {dir}"),
            );
            session.close().unwrap();
            remove(&request);
        },
    );
}

#[test]
fn rootless_size_limit_is_ignored_with_warning() {
    as_user(
        |_| {},
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            let warnings = |request: &ViewRequest| {
                let mut view = SharedOverlay::new().prepare(request).unwrap();
                let warnings = view.warnings().join("\n");
                view.release().unwrap();
                warnings
            };
            assert_eq!(warnings(&request), "");
            request.overlay.size = Some(1 << 20);
            let said = warnings(&request);
            assert!(said.contains("size is not kept"), "{said}");
            remove(&request);
        },
    );
}

#[test]
fn rootless_limit_of_each_scope_is_refused() {
    as_user(
        |_| {},
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            request.overlay.size_per_scope = Some(1 << 20);
            let refused = SharedOverlay::new().prepare(&request).map(drop);
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::ScopeLimit { .. }), "{error}");
            assert!(error.to_string().contains("run as root"), "{error}");
        },
    );
}

#[test]
fn undumpable_process_is_refused_with_that_reason() {
    as_user_of_any_kernel(
        |_| {},
        |home| {
            nix::sys::prctl::set_dumpable(false).unwrap();
            let request = of(home, "a", OverlayScope::Container);
            let error = Session::open(&SharedOverlay::new(), &request)
                .err()
                .unwrap();
            let Error::RootlessRefused { reason, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*reason, RootlessError::Undumpable, "{error}");
            let scopes = fs::read_dir(request.overlay.base.join("scopes")).unwrap();
            assert_eq!(scopes.count(), 0, "nothing is left of it");
        },
    );
}

#[test]
fn a_base_that_can_hold_no_upper_layer_is_named() {
    as_user(
        |home| {
            let at = |name: &str| {
                let dir = home.join(name);
                fs::create_dir(&dir).unwrap();
                chown(&dir, Some(USER), Some(USER)).unwrap();
                dir
            };
            let (upper, work, target) = (at("upper"), at("work"), at("target"));
            let options = format!(
                "lowerdir=/etc,upperdir={},workdir={}",
                upper.display(),
                work.display()
            );
            tool(
                "mount",
                &[
                    "-t",
                    "overlay",
                    "-o",
                    &options,
                    "x",
                    target.to_str().unwrap(),
                ],
            );
            chown(&target, Some(USER), Some(USER)).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
        },
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            request.overlay.base = home.join("target/base");
            let error = SharedOverlay::new().prepare(&request).err().unwrap();
            let Error::RootlessRefused { reason, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*reason, RootlessError::Base, "{error}");
            assert!(error.to_string().contains("REAPER_OVERLAY_BASE"), "{error}");
        },
    );
}

/// As a security module gives to every file. No user can copy them to an upper layer.
#[test]
fn security_labels_of_host_directories_are_not_changes() {
    as_user(
        |home| {
            let labelled = home.with_file_name("labelled");
            fs::create_dir(&labelled).unwrap();
            fs::set_permissions(&labelled, fs::Permissions::from_mode(0o777)).unwrap();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&labelled, c"security.reaper-test", b"label", flags).unwrap();
        },
        |home| {
            let request = of(home, "a", OverlayScope::Container);
            let session = open(&request);
            let labelled = home.with_file_name("labelled");
            sh(&session, &format!("echo new >{}/file", labelled.display()));
            session.close().unwrap();
            let made = format!("A {}/file", labelled.display());
            assert_eq!(changes(&request), [made]);
            remove(&request);
        },
    );
}

#[test]
fn a_commit_of_a_users_needs_only_directories_that_the_user_may_write_to() {
    as_user(
        |home| {
            owned(&home.join("mine"), "one");
            owned(&home.join("gone"), "x");
        },
        |home| {
            let request = of(home, "a", OverlayScope::Container);
            let session = open(&request);
            let script = format!(
                "cd {}; echo two >>mine; rm gone; mkdir -p new/dir; echo 3 >new/dir/file; \
                 touch /etc/reaper-hello",
                home.display()
            );
            sh(&session, &script);
            session.close().unwrap();
            let overlays = Overlays::new(&request.overlay);
            let scope = Scope::of(&request).unwrap();
            let apply = |path: &Path| {
                overlays.apply_to_host(&scope, &[path.to_owned()], ApplyMode::Apply, &mut |_| ())
            };
            let denied = apply(Path::new("/etc")).unwrap_err();
            assert_eq!(denied.errno(), Some(nix::libc::EACCES), "{denied}");
            apply(home).unwrap();
            assert_eq!(fs::read(home.join("mine")).unwrap(), b"onetwo\n");
            assert_eq!(fs::read(home.join("new/dir/file")).unwrap(), b"3\n");
            let mut names: Vec<_> = fs::read_dir(home)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["mine", "new"], "and nothing beside");
            assert_eq!(overlays.recover().unwrap(), None);
        },
    );
}
