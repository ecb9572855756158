//! Tests that run as an ordinary user.

use std::{fs, os::unix::fs::chown, path::Path, process::Command};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use reaper_overlay::{Overlays, Scope, Session, SharedOverlay, ViewRequest};
use reaper_spec::OverlayScope;

use super::{isolated, request};

pub const USER: u32 = 43210;

/// Runs `test` as an ordinary user, in mounts of its own in which `prepare` has worked as root. The
/// argument is the user's home, outside `/run`. A kernel that gives users no overlays has to say so.
pub fn as_user(prepare: fn(&Path), test: fn(&Path)) {
    as_user_of_any_kernel(prepare, |home| {
        if users_have_overlays() {
            test(home);
        } else {
            assert_refused_by_name(home);
        }
    });
}

/// The same for what is refused before the kernel is asked for an overlay.
pub fn as_user_of_any_kernel(prepare: fn(&Path), test: impl FnOnce(&Path)) {
    isolated(|dir| {
        let home = dir.join("home");
        for dir in [home.clone(), dir.join("state")] {
            fs::create_dir(&dir).unwrap();
            chown(&dir, Some(USER), Some(USER)).unwrap();
        }
        prepare(&home);
        become_user();
        test(&home);
    });
}

/// Whether this kernel lets a user mount overlays in a user namespace (Linux 5.11), found by doing so
/// without Reaper.
pub fn users_have_overlays() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let mount = format!(
        "mount -t tmpfs o {at} && mkdir {at}/l {at}/u {at}/w {at}/m && mount -t overlay \
         -o userxattr,lowerdir={at}/l,upperdir={at}/u,workdir={at}/w o {at}/m"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]);
    command.output().unwrap().status.success()
}

/// On an older kernel a user's container is refused, with that as the reason, and leaves nothing.
pub fn assert_refused_by_name(home: &Path) {
    let refused = of(home, "refused", OverlayScope::Container);
    let error = Session::open(&SharedOverlay::new(), &refused)
        .err()
        .unwrap();
    assert!(error.to_string().contains("since Linux 5.11"), "{error}");
    let overlays = Overlays::new(&refused.overlay);
    assert_eq!(overlays.list().unwrap().len(), 0);
}

pub fn become_user() {
    setgroups(&[]).unwrap();
    let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
    nix::sys::prctl::set_dumpable(true).unwrap();
}

pub fn owned(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    chown(path, Some(USER), Some(USER)).unwrap();
}

/// A request whose base is beside `home`.
pub fn of(home: &Path, id: &str, scope: OverlayScope) -> ViewRequest {
    request(&home.with_file_name("state"), id, scope)
}

pub fn changes(request: &ViewRequest) -> Vec<String> {
    let scope = Scope::of(request).unwrap();
    let changes = Overlays::new(&request.overlay).diff(&scope, &mut |_| ());
    changes.unwrap().iter().map(ToString::to_string).collect()
}

pub fn remove(request: &ViewRequest) {
    let scope = Scope::of(request).unwrap();
    Overlays::new(&request.overlay).remove(&scope).unwrap();
    let left = fs::read_dir(request.overlay.base.join("scopes")).unwrap();
    assert_eq!(left.count(), 0);
    let left = fs::read_dir(request.overlay.base.join("live/scopes")).unwrap();
    assert_eq!(left.count(), 0);
}
