//! User namespaces of an ordinary user: one uid and one gid, the user's own.

use std::fs::{self, File};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::process::{getegid, geteuid};

use crate::contract::{Context, Error};

/// What stands for the new user namespace in errors.
pub(crate) const USER_NAMESPACE: &str = "a user namespace";

/// A uid and a gid.
pub(crate) type Ids = (u32, u32);

/// The calling process's own, as its user namespace has them.
pub(crate) fn own() -> Ids {
    (geteuid().as_raw(), getegid().as_raw())
}

/// A user namespace and one of its mount namespaces, kept alive by these descriptors.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) user: File,
    pub(crate) mount: File,
}

impl Namespaces {
    /// Those of the process `pid`, which the caller has made.
    pub(crate) fn of(pid: u32) -> Result<Self, Error> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).context("keep the namespace", path)
        };
        Ok(Self {
            user: open("user")?,
            mount: open("mnt")?,
        })
    }

    /// Moves the calling process, which has one thread, into both; its root and working directory
    /// become the mount namespace's root.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        setns(&self.user, CloneFlags::CLONE_NEWUSER).context("enter", "the user namespace")?;
        setns(&self.mount, CloneFlags::CLONE_NEWNS).context("enter", "the mount namespace")
    }
}

/// Moves the calling process, which has one thread, into a new user namespace with mounts of its
/// own. Its uid and gid are called `inside` there, and are the only ones.
pub(crate) fn unshare_as(inside: Ids) -> Result<(), Error> {
    let outside = own();
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("make", USER_NAMESPACE)?;
    let write = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).context("write", path)
    };
    // Before the groups are mapped: nobody may leave a group that files deny something to.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("{} {} 1\n", inside.1, outside.1))?;
    write("uid_map", format!("{} {} 1\n", inside.0, outside.0))
}
