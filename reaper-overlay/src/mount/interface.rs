//! Mounting, by the system calls that there are.
//!
//! Older kernels lack some, and so do the seccomp filters of container engines. What there is is
//! found by trying, not from the kernel's version. What mount(2) can do is done by mount(2); the
//! newer calls are used where they can do more, and what stands in for them is next to them.

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsmount, fsopen, move_mount, open_tree,
    },
};

use crate::linux::syscall;

/// The system calls that mount, from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Interface {
    /// mount(2) alone.
    Classic,
    /// `open_tree`, `move_mount`, `fsopen`, `fsconfig` and `fsmount` (Linux 5.2): trees that are
    /// mounted nowhere, and can go from one mount namespace to another.
    Trees,
    /// `mount_setattr` as well (Linux 5.12): options for a tree before it is visible anywhere.
    Attributes,
}

impl Interface {
    /// The best one, if there are trees: only a process that may mount can ask for these.
    pub(crate) fn with_trees() -> Self {
        if syscall::has_mount_setattr() {
            Self::Attributes
        } else {
            Self::Trees
        }
    }

    /// Asks the kernel. The caller has to be allowed to mount.
    pub(crate) fn ask() -> Self {
        const UNKNOWN: u32 = u32::MAX;
        // A call that is there refuses what has no meaning to it.
        let trees = [
            open_tree(CWD, "", OpenTreeFlags::from_bits_retain(UNKNOWN)).err(),
            move_mount(CWD, "", CWD, "", MoveMountFlags::from_bits_retain(UNKNOWN)).err(),
            fsopen("", FsOpenFlags::from_bits_retain(UNKNOWN)).err(),
            fsconfig_create(CWD).err(),
            fsmount(
                CWD,
                FsMountFlags::from_bits_retain(UNKNOWN),
                MountAttrFlags::empty(),
            )
            .err(),
        ];
        if trees.iter().all(|answer| *answer == Some(Errno::INVAL)) {
            Self::with_trees()
        } else {
            Self::Classic
        }
    }
}

/// Whether something is meant with all that is mounted below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recursion {
    /// The mount alone.
    Alone,
    /// All below as well.
    All,
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, thread};

    use nix::libc;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    /// What is there if `call` fails with `errno`.
    fn without(call: i64, errno: Errno) -> Interface {
        let filter = SeccompFilter::new(
            BTreeMap::from([(call, Vec::new())]),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.raw_os_error().unsigned_abs()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        let asked = thread::spawn(move || {
            // It holds for this thread alone.
            apply_filter(&program).unwrap();
            Interface::ask()
        });
        asked.join().unwrap()
    }

    #[test]
    fn missing_mount_syscalls_select_older_interface() {
        let best = if syscall::has_mount_setattr() {
            Interface::Attributes
        } else {
            // Before Linux 5.12.
            Interface::Trees
        };
        for errno in [Errno::NOSYS, Errno::PERM] {
            let all = without(libc::SYS_getitimer, errno);
            assert_eq!(all, best);
            assert_eq!(without(libc::SYS_mount_setattr, errno), Interface::Trees);
            for call in [
                libc::SYS_open_tree,
                libc::SYS_move_mount,
                libc::SYS_fsopen,
                libc::SYS_fsconfig,
                libc::SYS_fsmount,
            ] {
                assert_eq!(without(call, errno), Interface::Classic, "{call} {errno}");
            }
        }
    }
}
