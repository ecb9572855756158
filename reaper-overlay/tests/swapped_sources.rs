//! Volumes whose source leads elsewhere by the time that it is mounted: what the policy allows is what is seen.

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use common::*;
use reaper_overlay::{
    Error, FilesystemIsolation, HostFilesystem, Session, SharedOverlay, ViewRequest,
};
use reaper_spec::{Bundle, Config, OverlayScope};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A folder that the policy allows, with a folder of its own and a link that leads out of it.
fn nodes_files(dir: &Path) {
    for (folder, text) in [("data/own", "own"), ("secrets", "secret")] {
        fs::create_dir_all(dir.join(folder)).unwrap();
        fs::write(dir.join(folder).join("content"), text).unwrap();
    }
    symlink("../secrets", dir.join("data/out")).unwrap();
}

fn swap(dir: &Path) {
    let [one, other] = ["data/own", "data/out"].map(|name| dir.join(name));
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// What a container of this mount is created with, once the policy has allowed it.
fn checked(dir: &Path, id: &str, rules: &str, options: &str) -> ViewRequest {
    let mut config = Config::default();
    let policy = format!("[policy]\nhost_paths = [\"{}/{rules}\"]\n", dir.display());
    config.apply_options(&policy).unwrap();
    let bundle = dir.join(id);
    fs::create_dir_all(&bundle).unwrap();
    let source = dir.join("data/own");
    let document = format!(
        r#"{{"process": {{"args": ["true"], "cwd": "/"}}, "mounts": [{{"destination": "/mnt",
            "type": "bind", "source": "{}", "options": [{options}]}}]}}"#,
        source.display()
    );
    fs::write(bundle.join("config.json"), document).unwrap();
    let mut container = Bundle::load(&bundle).unwrap().into_container_spec();
    let scope = OverlayScope::Node;
    let policy = &config.policy;
    policy
        .apply_to_container(&mut container, Some(&scope))
        .unwrap();
    let mut request = request(dir, id, scope);
    request.mounts = container.mounts;
    request.allowed_mounts = policy.allowed_mounts();
    request
}

/// Sets it at the end of its scope, also where a test fails.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn each_isolation(test: impl Fn(&dyn FilesystemIsolation)) {
    test(&SharedOverlay::new());
    test(&HostFilesystem);
}

#[test]
fn source_that_is_led_elsewhere_after_the_policys_check_is_refused() {
    isolated(|dir| {
        nodes_files(dir);
        let allowed = checked(dir, "a", "data", r#""rbind", "ro""#);
        each_isolation(|isolation| {
            let session = Session::open(isolation, &allowed).unwrap();
            assert_eq!(sh(&session, "cat /mnt/content"), "own");
            session.close().unwrap();
        });
        swap(dir);
        each_isolation(|isolation| {
            let refused = isolation.prepare(&allowed).err().unwrap();
            assert!(matches!(refused, Error::Policy(_)), "{refused}");
            let expected = format!(
                "policy.host_paths (the runtime's options in containerd's configuration, line 2) does not allow a \
                 mount of {0}/data/own, which is {0}/secrets",
                dir.display()
            );
            assert_eq!(refused.to_string(), expected);
        });
        swap(dir);
        // What may only be read there is not written to either.
        let writable = checked(dir, "b", "data", r#""rbind""#);
        let mut narrower = writable.clone();
        narrower.allowed_mounts[0].paths[0].read_only = true;
        each_isolation(|isolation| {
            assert!(isolation.prepare(&writable).is_ok());
            let refused = isolation.prepare(&narrower).err().unwrap().to_string();
            assert!(refused.contains("a writable mount of"), "{refused}");
        });
    });
}

#[test]
fn source_that_is_swapped_all_the_time_never_shows_what_the_policy_does_not_allow() {
    isolated(|dir| {
        nodes_files(dir);
        let allowed = checked(dir, "a", "data", r#""rbind", "ro""#);
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    swap(dir);
                }
            });
            let _done = Set(&done);
            for _ in 0..100 {
                match Session::open(&HostFilesystem, &allowed) {
                    Ok(session) => {
                        assert_eq!(sh(&session, "cat /mnt/content"), "own");
                        session.close().unwrap();
                    }
                    // Found again as another one, on kernels where that is needed.
                    Err(error) if error.errno() == Some(nix::libc::ESTALE) => {}
                    Err(error) => assert!(matches!(error, Error::Policy(_)), "{error}"),
                }
            }
        });
    });
}
