//! Where a filter around the program lets no mount be made read-only.

mod common;

use std::{fs, path::PathBuf};

use common::*;
use nix::libc;
use reaper_overlay::{Error, FilesystemIsolation, SharedOverlay, mountinfo};
use reaper_spec::OverlayScope;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// From now on the calling thread and its children change no mount's options.
fn refuse_options() {
    let remount = SeccompCondition::new(
        3,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(libc::MS_REMOUNT),
        libc::MS_REMOUNT,
    );
    let remount = SeccompRule::new(vec![remount.unwrap()]).unwrap();
    let calls = [
        (libc::SYS_mount_setattr, Vec::new()),
        (libc::SYS_mount, vec![remount]),
    ];
    let filter = SeccompFilter::new(
        calls.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    apply_filter(&program).unwrap();
}

/// Where there is a mount. Others than the test's own may be read-only in the view as well.
fn mounts() -> Vec<PathBuf> {
    let mounts = mountinfo::read().unwrap();
    mounts.into_iter().map(|mount| mount.mount_point).collect()
}

#[test]
fn path_listed_as_unprotected_is_writable_with_warning() {
    isolated(|dir| {
        // Overlay takes no file.
        for name in ["file", "bound", "secret", "hidden"] {
            fs::write(dir.join(name), name).unwrap();
        }
        bind(&dir.join("file"), &dir.join("bound"));
        bind(&dir.join("secret"), &dir.join("hidden"));
        refuse_options();
        let (bound, hidden) = (dir.join("bound"), dir.join("hidden"));
        let mut request = request(dir, "a", OverlayScope::Node);
        request.overlay.masks.add = vec![hidden.display().to_string()];
        request.overlay.unprotected = mounts();
        request.overlay.unprotected.retain(|path| *path != bound);
        let refused = SharedOverlay::new().prepare(&request).err().unwrap();
        assert!(
            matches!(&refused, Error::Unprotected { path, .. } if *path == bound),
            "{refused}"
        );
        assert_eq!(refused.errno(), Some(libc::EPERM));

        request.overlay.unprotected.push(bound.clone());
        let session = open(&request);
        let name = bound.display().to_string();
        sh(
            &session,
            &format!("echo x >>{name}; touch {}/new", dir.display()),
        );
        assert_eq!(fs::read(dir.join("file")).unwrap(), b"filex\n");
        assert!(!dir.join("new").exists(), "the rest is protected");
        let warnings = session.warnings();
        let said = |warning: &String| warning.contains("not protected") && warning.contains(&name);
        assert!(warnings.iter().any(said), "{warnings:?}");
        let seen = attempt(&session, &format!("cat {}", hidden.display()));
        assert!(seen.stdout.is_empty(), "a mask holds all the same");
        session.close().unwrap();
        let listed = reaper_overlay::Overlays::new(&request.overlay)
            .list()
            .unwrap();
        assert!(listed[0].unprotected.contains(&bound));
    });
}
