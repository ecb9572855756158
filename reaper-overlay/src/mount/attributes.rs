//! Changing the options of mounts.
//!
//! By mount_setattr(2) where there is one, for a tree at once. Before Linux 5.12 by remounts, one
//! mount at a time, each with all flags that it has to keep: a remount clears what it does not
//! name.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{StatVfsMountFlags, fstatvfs},
    mount::{
        MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags, mount_change,
        mount_remount, open_tree,
    },
};

use super::{
    flags::{ATIME, FLAGS, bits},
    interface::{Interface, Recursion},
};
use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{
        handle::fd_link,
        mount_point::{bind_to_itself, move_to},
        mountinfo::{self, MountInfo},
        resolve::{in_view, without_links},
        syscall::{self, MountAttr},
    },
};

pub(crate) const READ_ONLY: MountAttr = MountAttr {
    set: bits(MountAttrFlags::MOUNT_ATTR_RDONLY),
    clear: 0,
    propagation: 0,
};

/// Read-only, and private: what the host mounts there later would arrive writable.
pub(crate) const READ_ONLY_FOR_GOOD: MountAttr = MountAttr {
    propagation: nix::libc::MS_PRIVATE,
    ..READ_ONLY
};

const WRITABLE: MountAttr = MountAttr {
    set: 0,
    clear: READ_ONLY.set,
    propagation: 0,
};

/// Makes the mount that `tree` is the root of read-only, and none below it (mount_setattr(2)).
///
/// `tree` is a mount as open_tree(2) and fsmount(2) return it, attached or not.
///
/// # Errors
/// `ENOSYS` before Linux 5.12; `EPERM` without `CAP_SYS_ADMIN` in the user namespace of the mount's mount namespace;
/// `EINVAL` for a descriptor that is not a mount's root; `EBUSY` while a file is open for writing there.
pub fn make_read_only(tree: BorrowedFd<'_>) -> io::Result<()> {
    syscall::mount_setattr(tree, false, READ_ONLY)
}

/// A restriction of the mount at a path and of all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restriction {
    pub(crate) path: PathBuf,
    /// The `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// Whether the one mount at the path stays writable, if it is, where a restriction around it is read-only.
    pub(crate) writable: bool,
}

impl Restriction {
    fn is_read_only(&self) -> bool {
        self.set & READ_ONLY.set != 0
    }

    fn attr(&self) -> MountAttr {
        let propagation = match self.is_read_only() {
            true => READ_ONLY_FOR_GOOD.propagation,
            false => 0,
        };
        MountAttr {
            set: self.set,
            clear: 0,
            propagation,
        }
    }
}

/// Changes the mount whose root `top` is, and with `recursion` those below it.
pub(crate) fn change(
    interface: Interface,
    top: BorrowedFd<'_>,
    recursion: Recursion,
    attr: MountAttr,
) -> io::Result<()> {
    if attr == MountAttr::default() {
        return Ok(());
    }
    if interface == Interface::Attributes {
        return syscall::mount_setattr(top, recursion == Recursion::All, attr);
    }
    let at = fd_link(&top);
    if attr.propagation != 0 {
        let mut flags = MountPropagationFlags::from_bits_retain(attr.propagation as _);
        if recursion == Recursion::All {
            flags |= MountPropagationFlags::REC;
        }
        mount_change(&at, flags)?;
    }
    if (attr.set, attr.clear) == (0, 0) {
        return Ok(());
    }
    let mounts = mountinfo::read().map_err(to_io)?;
    let top = find(&mounts, top)?;
    remount(&at, top, attr)?;
    if recursion == Recursion::All {
        for mount in mountinfo::visible_on(&mounts, top) {
            if mount.id != top.id {
                if_there(mount, |path| remount(path, mount, attr))?;
            }
        }
    }
    Ok(())
}

/// Changes one of the mounts that were found, as long as it is there.
fn if_there(mount: &MountInfo, change: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    // By a descriptor: a container may have put a link into the way of the path since.
    let found = without_links(&mount.mount_point).map_err(to_io);
    let there = found.and_then(|found| match found {
        Some(found) if number(found.as_fd())? == Some(mount.id) => Ok(found),
        _ => Err(io::Error::from_raw_os_error(nix::libc::ESTALE)),
    });
    match there.and_then(|there| change(&there.link())) {
        // Behind a directory that is closed to this user, and so to all in the view.
        Err(error)
            if error.raw_os_error() == Some(nix::libc::EACCES)
                && Privilege::of_process() == Privilege::User =>
        {
            Ok(())
        }
        // The host has unmounted it since, and so it went here.
        Err(_) if has_gone(mount) => Ok(()),
        other => other,
    }
}

/// Applies `restrictions`, outer ones first, to the mounts of the calling process's namespace, except those at or
/// below one of `except`. Each path is that of a mount.
pub(crate) fn restrict(
    interface: Interface,
    restrictions: &[Restriction],
    except: &[&Path],
) -> Result<(), Error> {
    if restrictions.is_empty() {
        return Ok(());
    }
    if interface == Interface::Attributes && except.is_empty() {
        return restrict_trees(restrictions);
    }
    each_but(except, |mount| {
        let path = mount.mount_point.as_path();
        let mut attr = MountAttr::default();
        for restriction in restrictions.iter().filter(|r| path.starts_with(&r.path)) {
            if restriction.writable && path == restriction.path {
                attr.set &= !READ_ONLY.set;
                attr.propagation = 0;
            }
            attr.set |= restriction.set;
            attr.propagation |= restriction.attr().propagation;
        }
        if attr == MountAttr::default() {
            return Ok(());
        }
        let change = |path: &Path| {
            remount(path, mount, attr)?;
            let propagation = MountPropagationFlags::from_bits_retain(attr.propagation as _);
            match propagation.is_empty() {
                true => Ok(()),
                false => Ok(mount_change(path, propagation)?),
            }
        };
        if_there(mount, change).context(RESTRICT, path)
    })
}

/// Changes the propagation of all mounts of the calling process's namespace except those at or below one of `except`.
pub(crate) fn propagate(to: MountPropagationFlags, except: &[&Path]) -> Result<(), Error> {
    each_but(except, |mount| {
        if_there(mount, |path| Ok(mount_change(path, to)?))
            .context("change the propagation of", &mount.mount_point)
    })
}

/// Calls `change` for each visible mount of the calling process's namespace, parents first, except those at or below
/// one of `except`.
fn each_but(
    except: &[&Path],
    mut change: impl FnMut(&MountInfo) -> Result<(), Error>,
) -> Result<(), Error> {
    let mounts = mountinfo::read()?;
    let mut all = mountinfo::visible(&mounts).into_iter();
    all.try_for_each(
        |mount| match except.iter().any(|dir| mount.mount_point.starts_with(dir)) {
            true => Ok(()),
            false => change(mount),
        },
    )
}

const RESTRICT: &str = "restrict the mount on";

/// The same, a tree at a time.
fn restrict_trees(restrictions: &[Restriction]) -> Result<(), Error> {
    let mut kept = Vec::new();
    for restriction in restrictions {
        let path = restriction.path.as_path();
        // One that stays writable is not read-only itself.
        let keep = restriction.writable
            && restrictions
                .iter()
                .any(|other| other.is_read_only() && path.starts_with(&other.path));
        if keep && is_writable(path).context("look at", path)? {
            kept.push(path);
        }
    }
    for restriction in restrictions {
        let path = restriction.path.as_path();
        let top = in_view::open(path).context(RESTRICT, path)?;
        let change = |recursion, attr| {
            change(Interface::Attributes, top.as_fd(), recursion, attr).context(RESTRICT, path)
        };
        if kept.contains(&path) {
            change(Recursion::Alone, WRITABLE)?;
        }
        change(Recursion::All, restriction.attr())?;
    }
    Ok(())
}

fn is_writable(path: &Path) -> io::Result<bool> {
    let flags = fstatvfs(in_view::open(path)?)?.f_flag;
    Ok(!flags.contains(StatVfsMountFlags::RDONLY))
}

/// Makes the mounts of the calling process's namespace read-only, except at and below `writable`,
/// existing paths none of which lies in another one.
pub(crate) fn make_read_only_but(interface: Interface, writable: &[&Path]) -> Result<(), Error> {
    const KEEP: &str = "keep writable";
    let root = Path::new("/");
    let mut places = Vec::new();
    for &path in writable {
        places.push((in_view::open(path).context("open", path)?, path));
    }
    if interface == Interface::Attributes {
        let mut kept = Vec::new();
        for (place, path) in &places {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            kept.push(open_tree(place, "", flags).context("open", path)?);
        }
        let top = in_view::open(root).context("open", root)?;
        change(interface, top.as_fd(), Recursion::All, READ_ONLY)
            .context("make read-only", root)?;
        for (tree, (place, path)) in kept.iter().zip(&places) {
            move_to(tree.as_fd(), place.as_fd()).context(KEEP, path)?;
        }
        return Ok(());
    }
    for (place, path) in &places {
        bind_to_itself(place.as_fd()).context(KEEP, path)?;
    }
    each_but(writable, |mount| {
        if_there(mount, |path| remount(path, mount, READ_ONLY))
            .context("make read-only", &mount.mount_point)
    })
}

fn has_gone(mount: &MountInfo) -> bool {
    mountinfo::read().is_ok_and(|now| now.iter().all(|there| there.id != mount.id))
}

/// The mount that `file` is on.
fn find<'a>(mounts: &'a [MountInfo], file: BorrowedFd<'_>) -> io::Result<&'a MountInfo> {
    let id = number(file)?;
    let mount = mounts.iter().find(|mount| Some(mount.id) == id);
    mount.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The number of the mount that `file` is on.
fn number(file: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mut lines = text.lines();
    Ok(lines.find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()))
}

/// Changes the one mount that is seen at `path`, which is `mount`.
fn remount(path: &Path, mount: &MountInfo, attr: MountAttr) -> io::Result<()> {
    let flags = flags(&mount.options, attr);
    mount_remount(path, MountFlags::BIND | flags, c"")?;
    // Kernels ignore what they do not know.
    if flags.contains(MountFlags::NOSYMFOLLOW) {
        let mounts = mountinfo::read().map_err(to_io)?;
        let is_set = mounts.iter().any(|now| {
            now.id == mount.id && now.options.iter().any(|option| option == "nosymfollow")
        });
        if !is_set {
            return Err(io::Error::from_raw_os_error(nix::libc::EINVAL));
        }
    }
    Ok(())
}

/// All flags that a mount has to have after `attr`, given the options that it has: whatever a
/// remount does not name is cleared.
fn flags(options: &[String], attr: MountAttr) -> MountFlags {
    let has = |name: &str| options.iter().any(|option| option == name);
    let now = FLAGS.iter().filter(|flag| has(flag.name));
    let mut now = now.fold(0, |now, flag| now | bits(flag.attr));
    if has("noatime") {
        now |= bits(MountAttrFlags::MOUNT_ATTR_NOATIME);
    } else if !has("relatime") {
        now |= bits(MountAttrFlags::MOUNT_ATTR_STRICTATIME);
    }
    let then = now & !attr.clear | attr.set;
    let atime = match then & ATIME {
        atime if atime == bits(MountAttrFlags::MOUNT_ATTR_NOATIME) => MountFlags::NOATIME,
        atime if atime == bits(MountAttrFlags::MOUNT_ATTR_STRICTATIME) => MountFlags::STRICTATIME,
        _ => MountFlags::RELATIME,
    };
    FLAGS
        .iter()
        .filter(|flag| then & bits(flag.attr) != 0)
        .fold(atime, |flags, flag| flags | flag.ms)
}

fn to_io(error: Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno().unwrap_or(nix::libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remount_keeps_what_it_does_not_change() {
        let options = ["rw", "nosuid", "nodiratime", "relatime"].map(str::to_owned);
        let kept = MountFlags::NOSUID | MountFlags::NODIRATIME | MountFlags::RELATIME;
        assert_eq!(flags(&options, READ_ONLY), kept | MountFlags::RDONLY);
        let attr = MountAttr {
            set: bits(MountAttrFlags::MOUNT_ATTR_NOATIME),
            clear: ATIME | bits(MountAttrFlags::MOUNT_ATTR_NOSUID),
            propagation: 0,
        };
        let changed = MountFlags::NODIRATIME | MountFlags::NOATIME;
        assert_eq!(flags(&options, attr), changed);
    }

    #[test]
    fn access_times_that_are_always_updated_stay_so() {
        let options = ["ro".to_owned()];
        let kept = MountFlags::RDONLY | MountFlags::STRICTATIME;
        assert_eq!(flags(&options, READ_ONLY), kept);
    }
}
