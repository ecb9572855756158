//! The tests again on a kernel before Linux 5.2, which has mount(2) alone, and what that asks for.
#![allow(
    clippy::duplicate_mod,
    reason = "each of them has the tests' common part"
)]

#[path = "devices.rs"]
mod devices;
#[path = "host.rs"]
mod host;
#[path = "image.rs"]
mod image;
#[path = "masks.rs"]
mod masks;
#[path = "nested.rs"]
mod nested;
#[path = "own_mounts.rs"]
mod own_mounts;
#[path = "protection.rs"]
mod protection;
#[path = "restrictions.rs"]
mod restrictions;
#[path = "rootless.rs"]
mod rootless;
#[path = "rootless_masks.rs"]
mod rootless_masks;
#[path = "scope_limit.rs"]
mod scope_limit;
#[path = "scopes.rs"]
mod scopes;
#[path = "swapped_sources.rs"]
mod swapped_sources;
#[path = "volumes.rs"]
mod volumes;

mod common;

use std::{fs, path::Path};

use common::*;
use reaper_overlay::{FilesystemIsolation, Session, SharedOverlay, ViewRequest, mountinfo};
use reaper_spec::{Mount, OverlayScope};
use rustix::mount::MountPropagationFlags;

fn with_volume(dir: &Path, id: &str, from: &Path, propagation: &str) -> ViewRequest {
    let mut request = request(dir, id, OverlayScope::Node);
    request.mounts.push(Mount {
        destination: "/data".into(),
        typ: Some("bind".to_owned()),
        source: Some(from.to_owned()),
        options: vec!["rbind".to_owned(), propagation.to_owned()],
    });
    request
}

#[test]
fn host_root_is_absent_from_containers_mounts() {
    isolated(|dir| {
        let data = dir.join("data");
        mount_tmpfs(&data);
        let host = mountinfo::read().unwrap();
        let root = host
            .iter()
            .find(|mount| mount.mount_point == Path::new("/"));
        let root = &root.unwrap().device;
        // The one has its mounts locked, and the other one, which hears of the host, has not.
        for (id, propagation) in [("private", "rprivate"), ("slave", "rslave")] {
            let session = open(&with_volume(dir, id, &data, propagation));
            let table = mountinfo::parse(sh(&session, "cat /proc/self/mountinfo").as_bytes());
            let is_root = |m: &&mountinfo::MountInfo| m.mount_point == Path::new("/");
            assert_eq!(table.iter().filter(is_root).count(), 1, "{table:?}");
            let hosts = table
                .iter()
                .find(|m| m.device == *root && m.root == Path::new("/"));
            assert_eq!(hosts, None);
            let own = dir.join("base/live");
            assert!(
                !table
                    .iter()
                    .any(|mount| mount.mount_point.starts_with(&own))
            );
            let locked = !attempt(&session, "umount -l /sys").status.success();
            assert_eq!(locked, propagation == "rprivate");
        }
    });
}

#[test]
fn unpropagated_source_mount_is_refused_with_remedy() {
    isolated(|dir| {
        change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        );
        let (early, late) = (dir.join("early"), dir.join("late"));
        mount_tmpfs(&early);
        fs::create_dir(&late).unwrap();
        // With a member the scope stays as it was mounted.
        let first = open(&with_volume(dir, "first", &early, "rslave"));
        mount_tmpfs(&late);
        let request = with_volume(dir, "second", &late, "rslave");
        let error = Session::open(&SharedOverlay::new(), &request)
            .err()
            .unwrap();
        let said = error.to_string();
        assert!(
            said.contains("--make-rshared") && said.contains("/late"),
            "{said}"
        );
        SharedOverlay::new().cleanup(&request).unwrap();
        first.close().unwrap();
    });
}
