//! Mount and user namespaces: made, opened, entered, locked.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare},
    unistd::Pid,
};
use rustix::{
    fs::{Mode, OFlags, open, openat},
    mount::{MountPropagationFlags, mount_change},
    process::{getegid, geteuid},
};

use super::{helper::Helper, syscall};
use crate::contract::{Context, Error};

/// Locks all mounts (mount_namespaces(7)): a copy that belongs to another user namespace has its
/// mounts locked, and so has every copy of that one. Locked mounts can neither be unmounted, nor be
/// made writable, nor can a bind show what they cover. Returns false where user namespaces are
/// forbidden: a scope works without the locks.
pub(crate) fn lock_mounts() -> bool {
    match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS) {
        Ok(()) => true,
        Err(errno) => {
            tracing::debug!("the mounts of the overlay are not locked: {errno}");
            false
        }
    }
}

/// The mount namespace that the calling process leaves for a new one, which is to be bound there.
///
/// A namespace can be bound only where the number of the namespace is smaller. Linux 6.18 hands out
/// numbers from a range for each processor, so a newer one can have the smaller number; there is a
/// processor whose range goes on from the outside's. (The host's first namespace has the smallest
/// number of all: this concerns nodes that are containers themselves.)
pub(crate) struct Outside {
    id: u64,
    /// `/proc/thread-self/ns`. By its path a process may not reach it any more once its mounts are
    /// locked: it has no rights to a root that a container has closed (`chmod 400 /`).
    own: OwnedFd,
}

impl Outside {
    /// The calling process's own namespace. None on kernels that do not tell its number, on which
    /// every newer one has a greater number.
    pub(crate) fn of_caller() -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = open("/proc/thread-self/ns", flags, Mode::empty()).ok()?;
        let id = own_id(own.as_fd()).ok()?;
        Some(Self { id, own })
    }

    /// Moves the calling process into a copy of its namespace that can be bound, if it cannot.
    pub(crate) fn make_bindable(&self) -> Result<(), Error> {
        let is_bindable = || own_id(self.own.as_fd()).map(|id| id > self.id);
        for cpu in 0..CpuSet::count() {
            if is_bindable().context("ask for the number of", "/proc/thread-self/ns/mnt")? {
                break;
            }
            let mut one = CpuSet::new();
            if one.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &one).is_ok() {
                unshare(CloneFlags::CLONE_NEWNS).context("unshare again the mounts of", "/")?;
            }
        }
        Ok(())
    }
}

/// The number of the mount namespace of the calling process, whose `/proc/thread-self/ns` `own` is.
fn own_id(own: BorrowedFd<'_>) -> io::Result<u64> {
    let namespace = openat(own, "mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    syscall::mount_namespace_id(namespace.as_fd())
}

/// `f_type` of a file that stands for a namespace.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Whether `file` stands for a namespace.
pub(crate) fn is_namespace(file: &File) -> rustix::io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type as u64 == NSFS_MAGIC)
}

/// Locks the mounts of the calling process's namespace, as [`lock_mounts`] does, and stays in its
/// user namespace.
pub(crate) fn lock() -> Result<(), Error> {
    let root = Path::new("/");
    let ((), locked) = Helper::start("lock mounts", || {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("lock below", root)
    })?;
    let namespace = Namespaces::of(locked.id())?;
    namespace.enter().context("lock below", root)?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts of", root)
}

/// What errors call the new user namespace.
pub(crate) const USER_NAMESPACE: &str = "a user namespace";

/// A uid and a gid.
pub(crate) type Ids = (u32, u32);

/// The calling process's own, as its user namespace has them.
pub(crate) fn own() -> Ids {
    (geteuid().as_raw(), getegid().as_raw())
}

/// A mount namespace and the user namespace that it belongs to, kept alive by these descriptors.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Missing where the mount namespace belongs to the caller's own user namespace.
    pub(crate) user: Option<File>,
    pub(crate) mount: File,
}

impl Namespaces {
    /// Opens the mount namespace of the process `pid`, which the caller has made.
    pub(crate) fn of(pid: u32) -> Result<Self, Error> {
        let mount = open_namespace(pid, "mnt")?;
        Ok(Self { user: None, mount })
    }

    /// The same, with its user namespace.
    pub(crate) fn with_user(pid: u32) -> Result<Self, Error> {
        Ok(Self {
            user: Some(open_namespace(pid, "user")?),
            mount: open_namespace(pid, "mnt")?,
        })
    }

    /// Moves the calling process, which has one thread, into them; its root and working directory
    /// become the mount namespace's root.
    pub(crate) fn enter(&self) -> nix::Result<()> {
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
        }
        setns(&self.mount, CloneFlags::CLONE_NEWNS)
    }
}

fn open_namespace(pid: u32, kind: &str) -> Result<File, Error> {
    let path = format!("/proc/{pid}/ns/{kind}");
    File::open(&path).context("keep the namespace", path)
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
    // The kernel demands it before gid_map is written (user_namespaces(7)): a process must not
    // leave a group that a file's mode denies something to.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("{} {} 1\n", inside.1, outside.1))?;
    write("uid_map", format!("{} {} 1\n", inside.0, outside.0))
}

/// Moves the calling process into its own copy of the mount namespace, with the mounts as slaves of
/// those they were copied from.
pub(crate) fn unshare_mounts() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts of", "/")?;
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", downstream).context("make a slave of", "/")
}

/// Prepares the mounts of a new namespace for a view to be assembled of them: what the host mounts
/// below its own trees later arrives, nothing that is done here reaches the host, and every mount
/// can be bound and hold the layers of an overlay.
///
/// The kernel refuses both for an unbindable mount (`EINVAL`; "overlayfs: failed to clone
/// upperpath"), and where one is locked by a user namespace a recursive bind around it, too
/// (`EPERM`). Becoming a slave takes that property away on few kernels (on 6.18, not on 5.10 to 6.12 and
/// on 7.2); becoming shared does on every one, and adds no way to the host: a mount that is not
/// shared yet gets a peer group of its own.
pub(crate) fn make_bindable_slaves() -> Result<(), Error> {
    for flags in [
        MountPropagationFlags::SHARED,
        MountPropagationFlags::DOWNSTREAM,
    ] {
        mount_change("/", flags | MountPropagationFlags::REC).context("make a slave of", "/")?;
    }
    Ok(())
}
