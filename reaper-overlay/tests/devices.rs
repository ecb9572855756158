//! The devices and the root's propagation that a bundle asks for.

mod common;

use std::{fs, path::Path};

use common::{user::*, *};
use reaper_overlay::{FilesystemIsolation, HostFilesystem, Session, SharedOverlay, mountinfo};
use reaper_spec::{Device, DeviceType, OverlayScope, RootPropagation};

fn device(path: impl AsRef<Path>, typ: DeviceType, major: u32, minor: u32) -> Device {
    Device {
        path: path.as_ref().to_owned(),
        typ,
        major,
        minor,
        mode: None,
        uid: None,
        gid: None,
    }
}

#[test]
fn devices_that_the_node_lacks_are_the_containers_own() {
    isolated(|dir| {
        let name = format!("/dev/reaper-test-{}", std::process::id());
        let mut request = request(dir, "a", OverlayScope::Node);
        request.devices = vec![
            device(&name, DeviceType::Character, 1, 5),
            Device {
                mode: Some(0o640),
                uid: Some(33),
                gid: Some(34),
                ..device("/opt/devices/null", DeviceType::Character, 1, 3)
            },
            device("/dev/null", DeviceType::Character, 1, 3),
            device("/opt/devices/fifo", DeviceType::Fifo, 0, 0),
        ];
        let before = mount_table(&dir.join("base"));
        let session = open(&request);
        assert_eq!(
            sh(&session, &format!("head -c 3 {name} | od -An -tu1")).trim(),
            "0   0   0"
        );
        let script = "stat -c '%a %u %g %F' /opt/devices/null; stat -c '%a %F' /opt/devices/fifo
            echo x >/opt/devices/null; wc -c </opt/devices/null; test -c /dev/tty && stat -f -c %T /dev";
        let said = sh(&session, script);
        let expected = "640 33 34 character special file\n666 fifo\n0\n";
        assert!(said.starts_with(expected), "{said}");
        let table = sh(&session, "grep -c reaper-device /proc/self/mountinfo");
        assert_eq!(table, "3", "the node's own /dev/null is the fourth");
        let other = open(&common::request(dir, "other", OverlayScope::Node));
        assert!(!attempt(&other, &format!("test -c {name}")).status.success());
        assert_eq!(mount_table(&dir.join("base")), before);
        session.close().unwrap();
        assert!(!Path::new(&name).exists());
    });
}

#[test]
fn a_device_over_the_nodes_own_has_the_owner_that_is_asked_for() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        request.restrictions.read_only = true;
        request.devices = vec![Device {
            uid: Some(33),
            ..device("/dev/zero", DeviceType::Character, 1, 5)
        }];
        let own = fs::symlink_metadata("/dev/zero").unwrap();
        for isolation in [
            &SharedOverlay::new() as &dyn FilesystemIsolation,
            &HostFilesystem,
        ] {
            let session = Session::open(isolation, &request).unwrap();
            assert_eq!(
                sh(
                    &session,
                    "stat -c %u /dev/zero; head -c 1 /dev/zero | wc -c"
                ),
                "33\n1"
            );
            session.close().unwrap();
        }
        let now = fs::symlink_metadata("/dev/zero").unwrap();
        assert_eq!(now.modified().unwrap(), own.modified().unwrap());
    });
}

#[test]
fn an_ordinary_user_has_the_nodes_devices_and_no_others() {
    as_user(
        |_| {},
        |home| {
            let mut request = of(home, "a", OverlayScope::Container);
            request.devices = vec![Device {
                mode: Some(0o600),
                ..device("/dev/null", DeviceType::Character, 1, 3)
            }];
            let session = open(&request);
            sh(&session, "echo x >/dev/null");
            session.close().unwrap();
            request.devices = vec![device("/dev/reaper-none", DeviceType::Block, 7, 0)];
            let refused = Session::open(&SharedOverlay::new(), &request)
                .err()
                .unwrap();
            assert!(
                refused.to_string().contains("/dev/reaper-none needs root"),
                "{refused}"
            );
        },
    );
}

#[test]
fn the_root_has_the_propagation_that_is_asked_for() {
    isolated(|dir| {
        for (wanted, field) in [
            (None, "master:"),
            (Some(RootPropagation::Slave), "master:"),
            (Some(RootPropagation::Shared), "shared:"),
            (Some(RootPropagation::Private), ""),
            (Some(RootPropagation::Unbindable), "unbindable"),
        ] {
            let mut request = request(dir, "a", OverlayScope::Node);
            request.root_propagation = wanted;
            request.mounts.push(reaper_spec::Mount {
                destination: "/volume".into(),
                typ: None,
                source: Some("/usr".into()),
                options: vec!["rbind".to_owned(), "rprivate".to_owned()],
            });
            let session = open(&request);
            let table = mountinfo::parse(sh(&session, "cat /proc/self/mountinfo").as_bytes());
            let at = |path: &str| {
                let visible = mountinfo::visible(&table);
                let mount = visible.iter().find(|m| m.mount_point == Path::new(path));
                mount.unwrap().propagation.join(" ")
            };
            let root = at("/");
            match field {
                "" => assert_eq!(root, ""),
                field => assert!(root.contains(field), "{wanted:?}: {root}"),
            }
            assert_eq!(at("/volume"), "", "{wanted:?}");
            session.close().unwrap();
        }
    });
}
