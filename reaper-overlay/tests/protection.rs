//! The node stays as it is, whatever is done over the overlay.

mod common;

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use common::*;
use reaper_spec::OverlayScope;

const ODD: &[u8] = b"odd name\nwith:colon,comma\\and back\\040slash";

#[test]
fn a_workload_sees_its_changes_and_the_node_does_not() {
    isolated(|dir| {
        fs::create_dir_all(dir.join("data/moved/sub")).unwrap();
        fs::write(dir.join("data/file"), "old").unwrap();
        fs::write(dir.join("data/gone"), "old").unwrap();
        fs::write(dir.join("data/moved/sub/x"), "x").unwrap();
        let before = fingerprint(&dir.join("data"));
        needs("/etc/hosts", "any text will do");
        needs("/usr/share/doc", "any directory will do");
        let hosts = fs::read("/etc/hosts").unwrap();
        let table = mount_table(&dir.join("base"));
        let session = open(&request(dir, "c1", OverlayScope::Node));
        let data = dir.join("data");
        let data = data.to_str().unwrap();
        sh(
            &session,
            &format!(
                "set -e; cd {data}; echo new >file; rm gone; mv moved there; mkdir made; \
                 mknod device c 1 3; echo x >device; ln file hard; echo more >>/etc/hosts; \
                 truncate -s 1G sparse; chmod 4755 file; chown 12:13 file; touch /new-in-root; \
                 rm -rf /usr/share/doc; test ! -e /usr/share/doc; ln -s /etc/hosts link; \
                 test $(cat there/sub/x) = x; test $(stat -c %h file) = 2"
            ),
        );
        assert_eq!(
            sh(&session, &format!("cat {data}/file; tail -1 /etc/hosts")),
            "new\nmore"
        );
        assert_eq!(fingerprint(&dir.join("data")), before);
        assert_eq!(fs::read("/etc/hosts").unwrap(), hosts);
        assert!(Path::new("/usr/share/doc").exists());
        assert!(!Path::new("/new-in-root").exists());
        session.close().unwrap();
        assert_eq!(mount_table(&dir.join("base")), table);
    });
}

#[test]
fn every_kind_of_filesystem_is_visible_and_protected() {
    isolated(|dir| {
        let odd = dir.join(OsStr::from_bytes(ODD));
        mount_tmpfs(&odd);
        mount_tmpfs(&odd.join("deeper"));
        mount_ext4(&dir.join("image"), &dir.join("ext4"));
        fs::create_dir_all(dir.join("bound")).unwrap();
        fs::create_dir_all(dir.join("source")).unwrap();
        bind(&dir.join("source"), &dir.join("bound"));
        mount_tmpfs(&dir.join("read-only"));
        fs::write(dir.join("read-only/there"), "x").unwrap();
        tool(
            "mount",
            &["-o", "remount,ro", dir.join("read-only").to_str().unwrap()],
        );
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(dir.join("overlay").join(name)).unwrap();
        }
        fs::write(dir.join("overlay/lower/there"), "x").unwrap();
        let o = dir.join("overlay");
        let o = o.to_str().unwrap();
        let options = format!("lowerdir={o}/lower,upperdir={o}/upper,workdir={o}/work");
        tool(
            "mount",
            &["-t", "overlay", "-o", &options, "o", &format!("{o}/merged")],
        );
        let places = [
            odd.clone(),
            odd.join("deeper"),
            dir.join("ext4"),
            dir.join("bound"),
            dir.join("read-only"),
            dir.join("overlay/merged"),
        ];
        for place in &places {
            let _ = fs::write(place.join("there"), "x");
        }
        let before: Vec<_> = places.iter().map(|place| fingerprint(place)).collect();
        let session = open(&request(dir, "c1", OverlayScope::Node));
        for place in &places {
            let quoted = place.to_str().unwrap();
            let script = format!("cd \"{quoted}\" && cat there && echo new >there && echo y >more");
            // A shell knows backslashes in double quotes.
            let script = script.replace('\\', "\\\\");
            assert_eq!(sh(&session, &script), "x", "{place:?}");
        }
        let after: Vec<_> = places.iter().map(|place| fingerprint(place)).collect();
        assert_eq!(after, before);
    });
}

#[test]
fn path_tricks_do_not_escape_the_view() {
    isolated(|dir| {
        let session = open(&request(dir, "c1", OverlayScope::Container));
        let mark = "reaper-test-escape";
        for way in [
            format!("cd /usr; echo x >/proc/self/cwd/{mark}; test -e /usr/{mark}"),
            format!("cd /usr/../../..; echo x >{mark}; test -e /{mark}"),
            format!("echo x >/proc/self/root/{mark}2; test -e /{mark}2"),
            format!("ln -s / /usr/r; echo x >/usr/r/etc/{mark}; test -e /etc/{mark}"),
        ] {
            sh(&session, &way);
        }
        for place in ["/", "/usr", "/etc"] {
            assert!(!Path::new(place).join(mark).exists(), "{place}");
        }
        // The trees of the host are the host's.
        let shared = sh(
            &session,
            "readlink /proc/self/ns/pid; stat -c %d:%i /dev/null /run /sys",
        );
        let host = std::process::Command::new("sh")
            .args([
                "-c",
                "readlink /proc/self/ns/pid; stat -c %d:%i /dev/null /run /sys",
            ])
            .output()
            .unwrap();
        assert_eq!(shared, String::from_utf8(host.stdout).unwrap().trim_end());
        // And the base is hidden, so that `find /` ends.
        let base = dir.join("base");
        assert_eq!(
            sh(&session, &format!("ls {} 2>/dev/null", base.display())),
            ""
        );
    });
}

#[test]
fn workload_cannot_unmount_or_look_below_protection() {
    isolated(|dir| {
        mount_tmpfs(&dir.join("sub"));
        fs::create_dir_all(dir.join("srv")).unwrap();
        fs::write(dir.join("sub/file"), "x").unwrap();
        let session = open(&request(dir, "c1", OverlayScope::Node));
        let sub = dir.join("sub");
        let sub = sub.to_str().unwrap();
        assert!(!attempt(&session, &format!("umount {sub}")).status.success());
        assert!(
            !attempt(&session, &format!("umount -l {sub}"))
                .status
                .success()
        );
        let look = format!("mkdir /x && mount --bind {} /x", dir.display());
        assert!(
            !attempt(&session, &look).status.success(),
            "a bind that looks below"
        );
        // Mounts of one's own work.
        sh(&session, "mkdir /y && mount -t tmpfs t /y && umount /y");
    });
}

#[test]
fn full_upper_layer_fails_only_the_workload() {
    isolated(|dir| {
        let mut request = request(dir, "c1", OverlayScope::Node);
        request.overlay.size = Some(1 << 20);
        let session = open(&request);
        let output = attempt(&session, "head -c 4000000 /dev/zero >/big");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("No space left"),
            "{said}"
        );
        sh(&session, "rm /big; echo works >/small; cat /small");
        fs::write(dir.join("host"), vec![0; 4_000_000]).unwrap();
    });
}

#[test]
fn the_upper_may_be_on_another_disk() {
    isolated(|dir| {
        mount_ext4(&dir.join("image"), &dir.join("disk"));
        let mut request = request(dir, "c1", OverlayScope::Node);
        request.overlay.base = dir.join("disk/odd, base:\\name");
        let session = open(&request);
        assert_eq!(sh(&session, "echo 1 >/etc/new; cat /etc/new"), "1");
        session.close().unwrap();
        assert!(!Path::new("/etc/new").exists());
        // It is found again by the next one.
        let session = open(&request);
        assert_eq!(sh(&session, "cat /etc/new"), "1");
        // The disk itself has an overlay too, in which the base is hidden.
        let base = request.overlay.base.to_str().unwrap().replace('\\', "\\\\");
        let disk = dir.join("disk");
        let script = format!(
            "echo 2 >{0}/new && cat {0}/new; ls -A \"{base}\"",
            disk.display()
        );
        assert_eq!(sh(&session, &script), "2");
        assert!(!disk.join("new").exists());
    });
}
