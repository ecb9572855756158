//! Root or not, and where an ordinary user's state belongs.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use super::error::{Context, Error};

/// Whether overlays are made by root, or by an ordinary user in user namespaces. It is decided
/// once, with the base directory, and handed down with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    User,
}

impl Privilege {
    /// What the calling process has.
    pub(crate) fn of_process() -> Self {
        if geteuid().is_root() {
            Self::Root
        } else {
            Self::User
        }
    }
}

/// The directory below which an ordinary user's state and overlays are, as `/run/reaper` is root's:
/// `$XDG_RUNTIME_DIR/reaper`; without that variable, or where it names what is not the user's,
/// `/run/user/UID/reaper`; without that directory `/tmp/reaper-UID`, which is made, for its user
/// alone.
///
/// # Errors
/// `/tmp/reaper-UID` cannot be made, or another user owns it or may write to it.
pub fn user_directory() -> Result<PathBuf, Error> {
    let uid = geteuid().as_raw();
    find(
        std::env::var_os("XDG_RUNTIME_DIR"),
        Path::new("/run/user"),
        Path::new("/tmp"),
        uid,
    )
}

/// Where an ordinary user's programs keep what outlives a session: `$XDG_STATE_HOME`, or
/// `~/.local/state` (XDG Base Directory Specification). `None` where neither variable names a
/// directory of the user's, as after `sudo -u`.
pub(crate) fn state_home() -> Option<PathBuf> {
    let uid = geteuid().as_raw();
    let own = |name| {
        let dir = std::env::var_os(name).map(PathBuf::from)?;
        let is_own = |dir: &PathBuf| {
            dir.is_absolute() && fs::metadata(dir).is_ok_and(|there| there.uid() == uid)
        };
        Some(dir).filter(is_own)
    };
    own("XDG_STATE_HOME").or_else(|| own("HOME").map(|home| home.join(".local/state")))
}

fn find(
    named: Option<OsString>,
    sessions: &Path,
    temporary: &Path,
    uid: u32,
) -> Result<PathBuf, Error> {
    let candidates = [
        named.map(PathBuf::from),
        Some(sessions.join(uid.to_string())),
    ];
    let owned = |dir: &PathBuf| {
        dir.is_absolute()
            && fs::metadata(dir).is_ok_and(|there| there.is_dir() && there.uid() == uid)
    };
    if let Some(dir) = candidates.into_iter().flatten().find(owned) {
        return Ok(dir.join("reaper"));
    }
    let dir = temporary.join(format!("reaper-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).context("make", dir);
        }
        _ => {}
    }
    // Any user can make this name in a directory that all may write to.
    let there = fs::symlink_metadata(&dir).context("stat", &dir)?;
    if !there.is_dir() || there.uid() != uid || there.mode() & 0o022 != 0 {
        let foreign = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not this user's alone; set XDG_RUNTIME_DIR to a directory that is",
        );
        return Err(foreign).context("use", dir);
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn runtime_directory_is_first_one_owned_by_user() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let uid = geteuid().as_raw();
        let (sessions, temporary) = (dir.join("sessions"), dir.join("tmp"));
        fs::create_dir(&temporary).unwrap();
        let find = |named: Option<&Path>, uid| {
            find(named.map(|dir| dir.into()), &sessions, &temporary, uid)
        };
        assert_eq!(find(Some(dir), uid).unwrap(), dir.join("reaper"));
        let fallback = temporary.join(format!("reaper-{uid}"));
        assert_eq!(find(None, uid).unwrap(), fallback);
        assert_eq!(find(Some(Path::new("relative")), uid).unwrap(), fallback);
        assert_eq!(find(Some(&dir.join("missing")), uid).unwrap(), fallback);
        let session = sessions.join(uid.to_string());
        fs::create_dir_all(&session).unwrap();
        assert_eq!(find(None, uid).unwrap(), session.join("reaper"));
        // Root's directory, as it is after `su`, is not another user's.
        assert_eq!(find(Some(dir), uid + 1).unwrap_err().errno(), None);
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let uid = geteuid().as_raw();
        let place = dir.path().join(format!("reaper-{uid}"));
        let find = || find(None, &dir.path().join("none"), dir.path(), uid);
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(find().unwrap_err().to_string().contains("XDG_RUNTIME_DIR"));
        fs::remove_dir(&place).unwrap();
        symlink("/root", &place).unwrap();
        find().unwrap_err();
    }
}
