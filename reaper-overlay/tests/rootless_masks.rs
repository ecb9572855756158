//! What is hidden from an ordinary user's containers, and the image beneath what they see.

mod common;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use common::{kernel::takes_user_attributes, user::*, *};
use reaper_overlay::{ApplyMode, Error, Overlays, Scope, ViewRequest};
use reaper_spec::{ImageMode, OverlayScope};

/// Makes a directory of the user's.
fn dir(path: &Path) {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(USER), Some(USER)).unwrap();
}

/// Puts the overlays' base on a filesystem of its own, so that it lies below nothing of the view.
fn base_apart(home: &Path) {
    let state = home.with_file_name("state");
    mount_tmpfs(&state);
    chown(state, Some(USER), Some(USER)).unwrap();
}

/// Secrets in the user's home.
fn secrets(home: &Path) {
    dir(&home.join(".ssh"));
    owned(&home.join(".ssh/id"), "secret");
    fs::set_permissions(home.join(".ssh"), fs::Permissions::from_mode(0o700)).unwrap();
    for (name, text) in [
        ("one.key", "secret"),
        ("two.key", "shown"),
        ("plain", "shown"),
    ] {
        owned(&home.join(name), text);
    }
}

fn masking(home: &Path, id: &str, names: &[&str]) -> ViewRequest {
    let mut request = of(home, id, OverlayScope::Container);
    let inside = |name: &&str| home.join(name).display().to_string();
    request.overlay.masks.add = names.iter().map(inside).collect();
    request.overlay.masks.except = vec![inside(&"two.*")];
    // Root inside may try to undo it.
    request.user = Some((0, 0));
    request
}

#[test]
fn masks_added_by_user_hide_files_from_the_view() {
    as_user(
        |home| {
            base_apart(home);
            secrets(home);
        },
        |home| {
            let before = fingerprint(home);
            let request = masking(home, "a", &[".ssh", "*.key", "later"]);
            let session = open(&request);
            assert_eq!(session.warnings(), Vec::<String>::new());
            let at = home.display();
            let list = format!("cd {at}; ls -A . .ssh 2>&1 | tr '\\n' ' '");
            if takes_user_attributes(&request.overlay.base) {
                assert_eq!(sh(&session, &list), ".: .ssh plain two.key  .ssh:");
                assert_eq!(sh(&session, &format!("stat -c %a {at}/.ssh")), "700");
            } else {
                let missing = "ls: cannot access '.ssh': No such file or directory";
                assert_eq!(sh(&session, &list), format!("{missing} .: plain two.key"));
                sh(&session, &format!("mkdir {at}/.ssh"));
            }
            let mounts = format!("grep -c {at}/ /proc/self/mountinfo || true");
            assert_eq!(sh(&session, &mounts), "0", "nothing could be unmounted");
            owned_by_user(&home.join("later"), "secret");
            assert!(
                !attempt(&session, &format!("cat {at}/later"))
                    .status
                    .success()
            );
            fs::remove_file(home.join("later")).unwrap();
            // It is a place like others for what the workload has of its own.
            sh(
                &session,
                &format!("echo mine >{at}/.ssh/id; echo mine >{at}/one.key"),
            );
            assert_eq!(sh(&session, &format!("cat {at}/.ssh/id")), "mine");
            session.close().unwrap();
            let after = fingerprint(home);
            // Of the directory itself the time has changed, by `later`.
            assert_eq!(before.len(), after.len());
            assert_eq!(fs::read(home.join(".ssh/id")).unwrap(), b"secret");
            let scope = Scope::of(&request).unwrap();
            let overlays = Overlays::new(&request.overlay);
            let all = [home.to_owned()];
            let error = overlays.apply_to_host(&scope, &all, ApplyMode::DryRun, &mut |_| ());
            assert!(matches!(error, Err(Error::Masked { .. })), "{error:?}");
            remove(&request);
        },
    );
}

fn owned_by_user(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn masks_use_locked_mounts_where_no_layer_can_hide() {
    as_user(secrets, |home| {
        // The layers of the overlay over the home would lie in it.
        let mut request = masking(home, "a", &[".ssh", "one.key"]);
        request.overlay.base = home.join("base");
        let session = open(&request);
        let at = home.display();
        let read = format!("cat {at}/.ssh/* {at}/one.key");
        for way in [
            read.clone(),
            format!("umount {at}/one.key; {read}"),
            format!("umount -l {at}/.ssh; {read}"),
            format!("chmod 600 {at}/one.key; grep secret {at}/one.key"),
            format!("mkdir {at}/x; mount --bind {at} {at}/x && cat {at}/x/.ssh/id"),
        ] {
            let output = attempt(&session, &way);
            assert!(!output.status.success(), "{way}: {output:?}");
        }
        assert_eq!(sh(&session, &format!("cat {at}/two.key")), "shown");
        session.close().unwrap();
        remove(&request);
    });
}

#[test]
fn masks_hold_in_directories_with_mounts_below() {
    as_user(
        |home| {
            base_apart(home);
            secrets(home);
            dir(&home.join("disk"));
            mount_tmpfs(&home.join("disk"));
            mount_tmpfs(&home.join("secret-disk"));
            dir(&home.join("secret-disk/in"));
        },
        |home| {
            let request = masking(home, "a", &[".ssh", "*.key", "secret-disk"]);
            let session = open(&request);
            let list = format!(
                "cd {}; ls -A . .ssh secret-disk 2>/dev/null | tr '\\n' ' '",
                home.display()
            );
            let expected = if takes_user_attributes(&request.overlay.base) {
                ".: .ssh disk plain secret-disk two.key  .ssh:  secret-disk:"
            } else {
                ".: disk plain two.key"
            };
            assert_eq!(sh(&session, &list), expected);
            session.close().unwrap();
            remove(&request);
        },
    );
}

#[test]
fn rootless_view_applies_built_in_masks() {
    as_user(
        |home| {
            base_apart(home);
            let etc = home.with_file_name("etc");
            tool("cp", &["-a", "/etc", etc.to_str().unwrap()]);
            fs::write(etc.join("shadow"), "root:$6$secret:1::::::\n").unwrap();
            // As for somebody in the group `shadow`.
            fs::set_permissions(etc.join("shadow"), fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(etc.join("gshadow"), "closed").unwrap();
            fs::set_permissions(etc.join("gshadow"), fs::Permissions::from_mode(0o600)).unwrap();
            let kubernetes = etc.join("kubernetes");
            if kubernetes.exists() {
                fs::remove_dir_all(&kubernetes).unwrap();
            }
            fs::create_dir_all(kubernetes.join("open")).unwrap();
            bind(&etc, "/etc".as_ref());
        },
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            let session = open(&request);
            assert_eq!(session.warnings(), Vec::<String>::new());
            assert_eq!(sh(&session, "cat /etc/shadow"), "root:*:1::::::");
            assert!(!attempt(&session, "cat /etc/gshadow").status.success());
            if takes_user_attributes(&request.overlay.base) {
                assert_eq!(sh(&session, "ls -A /etc/kubernetes"), "");
            } else {
                sh(
                    &session,
                    "! test -e /etc/kubernetes && mkdir /etc/kubernetes",
                );
            }
            sh(&session, "echo mine >/etc/kubernetes/mine");
            session.close().unwrap();
            remove(&request);
            request.overlay.masks.replace = Some(Vec::new());
            let session = open(&request);
            assert_eq!(sh(&session, "ls /etc/kubernetes"), "open");
            session.close().unwrap();
            remove(&request);
        },
    );
}

#[test]
fn rootless_image_lies_below_the_host() {
    as_user(
        |home| {
            base_apart(home);
            for name in [
                "",
                "etc",
                "opt",
                "opt/tool",
                "brought",
                "home",
                "var/lib/of-image",
            ] {
                dir(&home.join("image").join(name));
            }
            dir(&home.join("image/var/lib"));
            owned(&home.join("image/etc/hostname"), "the image's");
            owned(&home.join("image/etc/of-image"), "image");
            owned(&home.join("image/opt/tool/run"), "image");
            owned(&home.join("image/brought/file"), "image");
            owned(&home.join("image/home/lost"), "image");
            // On a node with a merged /usr a symlink is in the place of both.
            for name in ["bin", "sbin"] {
                dir(&home.join("image").join(name));
                owned(&home.join("image").join(name).join("of-image"), name);
            }
        },
        |home| {
            let before = fingerprint(&home.join("image"));
            let mut request = of(home, "a", OverlayScope::Node);
            request.image = ImageMode::Lower;
            request.rootfs = Some(home.join("image"));
            let session = open(&request);
            assert_eq!(session.warnings(), Vec::<String>::new());
            let script = "cat /etc/of-image /opt/tool/run /brought/file; ls -d /var/lib/of-image";
            assert_eq!(sh(&session, script), "imageimageimage/var/lib/of-image");
            assert_eq!(sh(&session, "cat /bin/of-image /sbin/of-image"), "binsbin");
            let name = fs::read_to_string("/etc/hostname").unwrap();
            assert_eq!(sh(&session, "cat /etc/hostname"), name.trim_end());
            sh(
                &session,
                "echo x >/brought/file; rm /opt/tool/run; rm -r /var/lib/of-image",
            );
            session.close().unwrap();
            assert_eq!(fingerprint(&home.join("image")), before);
            remove(&request);
            // An overlay cannot have a layer that lies in another one.
            let inside = home.strip_prefix("/").unwrap();
            fs::create_dir_all(home.join("image").join(inside)).unwrap();
            fs::write(home.join("image").join(inside).join("lost"), "").unwrap();
            let session = open(&request);
            let said = session.warnings().join("\n");
            assert!(said.contains(&home.display().to_string()), "{said}");
            session.close().unwrap();
            remove(&request);
        },
    );
}
