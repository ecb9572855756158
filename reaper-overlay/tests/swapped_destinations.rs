//! Volumes whose destination, or a directory around it, is made a link to elsewhere by another process: nothing is
//! made or mounted where the link leads.

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use common::*;
use reaper_overlay::{FilesystemIsolation, HostFilesystem, Session, SharedOverlay, ViewRequest};
use reaper_spec::{Mount, OverlayScope};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Sets it at the end of its scope, also where a test fails.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory of the host that containers see as it is, and that goes with this.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let place = PathBuf::from(format!("/run/reaper-test-swapped-{}", std::process::id()));
        fs::create_dir_all(place.join("own")).unwrap();
        fs::create_dir(place.join("target")).unwrap();
        symlink(place.join("target"), place.join("link")).unwrap();
        Self(place)
    }

    fn swap(&self) {
        let [one, other] = ["own", "link"].map(|name| self.0.join(name));
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn with_volume(dir: &Path, to: &Path) -> ViewRequest {
    let data = dir.join("data");
    fs::create_dir_all(&data).unwrap();
    let mut request = request(dir, "a", OverlayScope::Node);
    request.mounts.push(Mount {
        destination: to.to_owned(),
        typ: Some("bind".to_owned()),
        source: Some(data),
        options: vec!["rbind".to_owned()],
    });
    request
}

#[test]
fn no_mount_point_is_made_through_a_link_that_comes_into_its_way() {
    isolated(|dir| {
        let place = Place::new();
        let own = fs::File::open(place.0.join("own")).unwrap();
        let own = PathBuf::from(format!(
            "/proc/self/fd/{}/volume",
            std::os::fd::AsRawFd::as_raw_fd(&own)
        ));
        let request = with_volume(dir, &place.0.join("own/volume"));
        for isolation in [
            &SharedOverlay::new() as &dyn FilesystemIsolation,
            &HostFilesystem,
        ] {
            let done = AtomicBool::new(false);
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        place.swap();
                    }
                });
                let _done = Set(&done);
                for round in 0..40 {
                    // It may have been there, gone or a link at each step.
                    if let Ok(session) = Session::open(isolation, &request) {
                        session.close().unwrap();
                    }
                    let left = fs::read_dir(place.0.join("target")).unwrap().count();
                    assert_eq!(left, 0, "in round {round}");
                    // What could not be removed, since a link was in the way, is made anew.
                    let _ = fs::remove_dir(&own);
                }
            });
        }
    });
}

#[test]
fn a_mount_of_the_node_is_seen_where_a_containers_link_leads_to_its_place() {
    isolated(|dir| {
        let around = dir.join("around");
        fs::create_dir(&around).unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let first = open(&request);
        let moved = dir.join("moved");
        sh(
            &first,
            &format!(
                "cd {}; rmdir around; mkdir -p moved/data; ln -s {} around",
                dir.display(),
                moved.display()
            ),
        );
        first.close().unwrap();
        let data = around.join("data");
        fs::create_dir(&data).unwrap();
        mount_tmpfs(&data);
        fs::write(data.join("content"), "node's").unwrap();
        let second = open(&request);
        for place in ["around/data", "moved/data"] {
            let content = dir.join(place).join("content");
            assert_eq!(sh(&second, &format!("cat {}", content.display())), "node's");
        }
        second.close().unwrap();
        assert!(!moved.exists(), "the host's root has no such directory");
    });
}
