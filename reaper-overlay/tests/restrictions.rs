//! What a container may not change or read of its view, and no other one notices.

mod common;

use std::{fs, path::Path};

use common::{user::*, *};
use reaper_overlay::{HostFilesystem, Session, ViewRequest, mountinfo};
use reaper_spec::{ImageMode, Mount, OverlayScope};

fn volume(request: &mut ViewRequest, from: &Path, to: &str, options: &[&str]) {
    request.mounts.push(Mount {
        destination: to.into(),
        typ: Some("bind".to_owned()),
        source: Some(from.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    });
}

fn engines(request: &mut ViewRequest, kind: &str, to: &str, options: &[&str]) {
    request.mounts.push(Mount {
        destination: to.into(),
        typ: Some(kind.to_owned()),
        source: Some(kind.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    });
}

fn assert_read_only(session: &Session, path: &str) {
    let output = attempt(session, &format!("touch {path}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Read-only file system"), "{path}: {output:?}");
}

/// A name in `dir` that no other program has.
fn unique(dir: &str) -> String {
    format!("{dir}/reaper-test-{}", std::process::id())
}

#[test]
fn a_read_only_root_covers_all_but_the_volumes() {
    isolated(|dir| {
        for name in ["data", "fixed", "data/inner"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        mount_tmpfs(&dir.join("data/inner"));
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &dir.join("data"), "/data", &["rbind"]);
        volume(&mut request, &dir.join("fixed"), "/fixed", &["bind", "ro"]);
        volume(&mut request, &dir.join("data"), "/opt/deep", &["bind"]);
        request.restrictions.read_only = true;
        request.cwd = "/made/for/it".into();
        let before = mount_table(&dir.join("base"));
        let session = open(&request);
        for tree in ["", "/usr", "/run", "/dev", "/var", "/opt", "/fixed", "/sys"] {
            assert_read_only(&session, &unique(tree));
        }
        assert_read_only(&session, &format!("{}/x", dir.display()));
        let shm = unique("/dev/shm");
        sh(
            &session,
            &format!(
                "pwd >/dev/null; touch /data/a /data/inner/b /opt/deep/c {shm}; rm {shm}
                 echo x >/dev/null; echo 0 >/proc/self/oom_score_adj"
            ),
        );
        assert_eq!(sh(&session, "pwd"), "/made/for/it");
        assert_eq!(mount_table(&dir.join("base")), before, "the node's mounts");
        let other = open(&common::request(dir, "other", OverlayScope::Node));
        sh(&other, "touch /usr/written; rm /usr/written");
        sh(&session, "test -d /made/for/it");
        other.close().unwrap();
        session.close().unwrap();
        assert!(dir.join("data/a").exists());
    });
}

#[test]
fn a_read_only_root_covers_an_image_beneath_or_at_a_path_too() {
    isolated(|dir| {
        let image = dir.join("image");
        fs::create_dir_all(image.join("of-the-image")).unwrap();
        for (mode, path) in [
            (ImageMode::Lower, "/of-the-image"),
            (ImageMode::MountAt, "/.reaper-image/of-the-image"),
        ] {
            let mut request = request(dir, "a", OverlayScope::Container);
            request.image = mode;
            request.rootfs = Some(image.clone());
            request.restrictions.read_only = true;
            let session = open(&request);
            assert_read_only(&session, &format!("{path}/new"));
            assert_read_only(&session, "/usr/new");
            session.close().unwrap();
        }
    });
}

#[test]
fn nothing_is_restricted_where_the_nodes_admin_has_decided_so() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        engines(&mut request, "sysfs", "/sys", &["ro", "noexec"]);
        request.restrictions.read_only = true;
        request.restrictions.masked_paths = vec!["/proc/version".into()];
        request.unrestricted = true;
        let session = open(&request);
        sh(&session, "touch /usr/new; grep -q Linux /proc/version");
        let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let options = |table: &str| {
            let mut mounts = mountinfo::parse(table.as_bytes()).into_iter();
            let sys = mounts.find(|mount| mount.mount_point == Path::new("/sys"));
            sys.unwrap().options
        };
        assert_eq!(
            options(&sh(&session, "cat /proc/self/mountinfo")),
            options(&own)
        );
        session.close().unwrap();
    });
}

#[test]
fn what_the_host_mounts_later_is_not_writable_in_a_read_only_view() {
    isolated(|dir| {
        let place = unique("/run");
        fs::create_dir(&place).unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        request.restrictions.read_only = true;
        let session = open(&request);
        mount_tmpfs(Path::new(&place));
        assert_read_only(&session, &format!("{place}/x"));
        session.close().unwrap();
        tool("umount", &[&place]);
        fs::remove_dir(&place).unwrap();
    });
}

#[test]
fn what_an_engine_mounts_writable_stays_so_in_a_read_only_view() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        engines(&mut request, "sysfs", "/sys", &["nosuid"]);
        engines(&mut request, "tmpfs", "/run", &["nosuid"]);
        request.restrictions.read_only = true;
        let session = open(&request);
        let table = mountinfo::parse(sh(&session, "cat /proc/self/mountinfo").as_bytes());
        let is_read_only = |path: &str| {
            let mount = mountinfo::visible(&table)
                .into_iter()
                .find(|mount| mount.mount_point == Path::new(path))
                .unwrap();
            mount.options.iter().any(|option| option == "ro")
        };
        let host = mountinfo::read().unwrap();
        let sys = host.iter().find(|m| m.mount_point == Path::new("/sys"));
        let sys = sys.unwrap().options.iter().any(|option| option == "ro");
        assert_eq!(is_read_only("/sys"), sys, "as it is on this machine");
        assert_read_only(&session, &unique("/run"));
        session.close().unwrap();
    });
}

#[test]
fn masked_and_read_only_paths_are_the_containers_own() {
    isolated(|dir| {
        fs::create_dir(dir.join("secrets")).unwrap();
        fs::write(dir.join("secrets/key"), "secret").unwrap();
        fs::write(dir.join("file"), "secret").unwrap();
        fs::create_dir(dir.join("volume")).unwrap();
        fs::write(dir.join("volume/token"), "secret").unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &dir.join("volume"), "/volume", &["rbind"]);
        request.restrictions.masked_paths = vec![
            dir.join("secrets"),
            dir.join("file"),
            dir.join("missing"),
            dir.join("file/below"),
            "/proc/version".into(),
            "/volume/token".into(),
        ];
        request.restrictions.read_only_paths = vec![
            "/proc/sys".into(),
            "/proc/missing".into(),
            "/proc/sysrq-trigger".into(),
            "/usr".into(),
        ];
        let before = mount_table(&dir.join("base"));
        let other = open(&common::request(dir, "other", OverlayScope::Node));
        let session = open(&request);
        let (secrets, file) = (dir.join("secrets"), dir.join("file"));
        let (secrets, file) = (secrets.display(), file.display());
        for masked in [&*file.to_string(), "/proc/version", "/volume/token"] {
            assert_eq!(sh(&session, &format!("cat {masked}; echo x >{masked}")), "");
        }
        assert_eq!(sh(&session, &format!("ls -A {secrets}")), "");
        assert_read_only(&session, &format!("{secrets}/new"));
        assert_read_only(&session, "/usr/new");
        // The value that it has, should it be written.
        let write = "v=$(cat /proc/sys/vm/swappiness); echo $v >/proc/sys/vm/swappiness";
        let output = attempt(&session, write);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Read-only file system"), "{said}");
        assert!(
            !attempt(&session, "echo >>/proc/sysrq-trigger")
                .status
                .success()
        );
        sh(&session, "touch /volume/new; touch /opt/new");
        for view in [
            &other,
            &open(&common::request(dir, "third", OverlayScope::Node)),
        ] {
            let read = format!("cat {file} {secrets}/key; grep -q Linux /proc/version");
            assert_eq!(sh(view, &read), "secretsecret");
            sh(view, "touch /usr/new; rm /usr/new");
        }
        assert_eq!(mount_table(&dir.join("base")), before, "the node's mounts");
        assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "secret");
        session.close().unwrap();
    });
}

#[test]
fn a_link_to_another_processs_files_cannot_be_masked() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        request.restrictions.masked_paths = vec!["/proc/1/root/etc".into()];
        let refused = Session::open(&reaper_overlay::SharedOverlay::new(), &request);
        let said = refused.err().unwrap().to_string();
        assert!(said.contains("/proc/1/root/etc"), "{said}");
    });
}

#[test]
fn the_host_itself_is_restricted_for_the_container_alone() {
    isolated(|dir| {
        for name in ["data", "place"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("file"), "secret").unwrap();
        let before = mount_table(&dir.join("base"));
        let mut request = request(dir, "a", OverlayScope::Node);
        let place = dir.join("place").display().to_string();
        volume(&mut request, &dir.join("data"), &place, &["rbind"]);
        request.restrictions.read_only = true;
        request.restrictions.masked_paths = vec![dir.join("file")];
        let session = Session::open(&HostFilesystem, &request).unwrap();
        assert_read_only(&session, &dir.join("new").display().to_string());
        assert_read_only(&session, &unique("/run"));
        sh(&session, &format!("touch {place}/new"));
        assert_eq!(sh(&session, &format!("cat {}/file", dir.display())), "");
        assert_eq!(mount_table(&dir.join("base")), before);
        session.close().unwrap();
        // Without volumes too.
        request.mounts.clear();
        let session = Session::open(&HostFilesystem, &request).unwrap();
        assert_read_only(&session, &dir.join("new").display().to_string());
        session.close().unwrap();
        fs::write(dir.join("new"), "").unwrap();
    });
}

#[test]
fn an_ordinary_users_container_is_restricted_likewise() {
    as_user(
        |home| owned(&home.join("file"), "secret"),
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            if !kernel::lacks_trees() {
                fs::create_dir(home.join("data")).unwrap();
                volume(&mut request, &home.join("data"), "/data", &["rbind"]);
            }
            request.restrictions.read_only = true;
            request.restrictions.masked_paths = vec![home.join("file"), "/proc/keys".into()];
            request.restrictions.read_only_paths = vec!["/data".into(), "/proc/sys".into()];
            let session = open(&request);
            assert_read_only(&session, &home.join("new").display().to_string());
            if !kernel::lacks_trees() {
                assert_read_only(&session, "/data/new");
            }
            assert_eq!(sh(&session, &format!("cat {}/file", home.display())), "");
            session.close().unwrap();
            remove(&request);
        },
    );
}

#[test]
fn what_an_engine_says_of_the_hosts_trees_holds_for_the_container_alone() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        engines(
            &mut request,
            "proc",
            "/proc",
            &["nosuid", "noexec", "nodev"],
        );
        engines(&mut request, "tmpfs", "/dev/shm", &["noexec", "size=64m"]);
        engines(
            &mut request,
            "sysfs",
            "/sys",
            &["nosuid", "noexec", "nodev", "ro"],
        );
        engines(
            &mut request,
            "tmpfs",
            "/run",
            &["nosuid", "nodev", "mode=755"],
        );
        engines(&mut request, "mqueue", "/dev/mqueue", &["ro"]);
        volume(&mut request, dir, "/run/reaper-test-volume", &["bind"]);
        let before = mount_table(&dir.join("base"));
        let session = open(&request);
        let table = mountinfo::parse(sh(&session, "cat /proc/self/mountinfo").as_bytes());
        let visible = mountinfo::visible(&table);
        for (path, option) in [
            ("/proc", "noexec"),
            ("/dev/shm", "noexec"),
            ("/sys", "ro"),
            ("/run", "nodev"),
        ] {
            let below = visible.iter().filter(|m| {
                m.mount_point.starts_with(path) && !m.mount_point.ends_with("reaper-test-volume")
            });
            let without: Vec<_> = below
                .filter(|m| m.options.iter().all(|o| o != option))
                .collect();
            assert!(without.is_empty(), "{path} {option}: {without:?}");
        }
        let own = |m: &&&mountinfo::MountInfo| m.mount_point.ends_with("reaper-test-volume");
        let own = visible.iter().find(own).unwrap();
        assert!(!own.options.iter().any(|o| o == "nodev"), "{own:?}");
        assert_read_only(&session, "/sys/fs/cgroup/x");
        let run = unique("/run");
        sh(&session, &format!("touch {run}; rm {run}"));
        assert_eq!(mount_table(&dir.join("base")), before, "the node's mounts");
        session.close().unwrap();
    });
}

#[test]
fn cgroups_that_are_mounted_writable_are_so_below_a_read_only_sys() {
    isolated(|dir| {
        let writable = |session: &Session| {
            let script = "for at in $(grep -o ' /sys/fs/cgroup[^ ]* ' /proc/self/mountinfo); do
                test -w $at && echo $at; done; true";
            sh(session, script)
        };
        let plain = open(&request(dir, "plain", OverlayScope::Node));
        let mut request = request(dir, "a", OverlayScope::Node);
        engines(&mut request, "sysfs", "/sys", &["ro"]);
        engines(&mut request, "cgroup", "/sys/fs/cgroup", &["nosuid", "rw"]);
        let session = open(&request);
        assert_read_only(&session, "/sys/x");
        assert_eq!(writable(&session), writable(&plain));
        session.close().unwrap();
    });
}
