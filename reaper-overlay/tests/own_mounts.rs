//! Reaper's own mounts are in nobody's way.

mod common;

use std::fs;

use common::*;
use reaper_overlay::ViewRequest;
use reaper_spec::{Mount, OverlayScope};

fn host_path(request: &mut ViewRequest, from: &str, options: &[&str]) {
    request.mounts.push(Mount {
        destination: "/host".into(),
        typ: Some("bind".to_owned()),
        source: Some(from.into()),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    });
}

#[test]
fn directory_containing_the_base_can_be_a_volume() {
    isolated(|dir| {
        fs::write(dir.join("file"), "the node's").unwrap();
        // A pinned namespace cannot be mounted in a younger one: it must not be in the copy.
        let first = open(&request(dir, "first", OverlayScope::Node));
        for (id, from) in [("tree", "/"), ("folder", dir.to_str().unwrap())] {
            let mut request = request(dir, id, OverlayScope::Container);
            host_path(&mut request, from, &["rbind", "rslave"]);
            let session = open(&request);
            let below = if from == "/" {
                dir.to_str().unwrap()
            } else {
                ""
            };
            assert_eq!(
                sh(&session, &format!("cat /host{below}/file")),
                "the node's"
            );
            let table = sh(&session, "cat /proc/self/mountinfo");
            let base = format!(" /host{below}/base");
            assert!(!table.contains(&base), "{table}");
            session.close().unwrap();
        }
        first.close().unwrap();
    });
}
