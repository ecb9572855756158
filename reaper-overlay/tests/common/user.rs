//! Tests that run as an ordinary user.

use std::{fs, os::unix::fs::chown, path::Path};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use reaper_overlay::{Overlays, Scope, ViewRequest};
use reaper_spec::OverlayScope;

use super::{isolated, request};

pub const USER: u32 = 43210;

/// Runs `test` as an ordinary user, in mounts of its own in which `prepare` has worked as root. The
/// argument is the user's home, outside `/run`.
pub fn as_user(prepare: fn(&Path), test: fn(&Path)) {
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
