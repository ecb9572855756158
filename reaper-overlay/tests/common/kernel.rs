//! Older kernels, as far as the system calls go that they lack.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// What came with Linux 5.2, to mount without mount(2).
const TREES: [i64; 6] = [
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
];

/// `statmount` and `listmount` (Linux 6.8), by the numbers that they have everywhere.
const LISTS: [i64; 2] = [457, 458];

/// What the kernel lacks that this test program is named after.
fn lacking() -> Vec<i64> {
    let newer = [&LISTS[..], &[libc::SYS_mount_setattr]].concat();
    match env!("CARGO_CRATE_NAME") {
        "before_5_12" => newer,
        "before_5_2" => [&TREES[..], &newer, &[libc::SYS_openat2]].concat(),
        _ => Vec::new(),
    }
}

/// Whether volumes cannot be taken from one mount namespace to another.
pub fn lacks_trees() -> bool {
    lacking().contains(&libc::SYS_open_tree)
}

/// Whether volumes get their options only once they are mounted.
pub fn lacks_attributes() -> bool {
    lacking().contains(&libc::SYS_mount_setattr)
}

/// Lets the calling thread and its children live on the kernel that this test program is named after.
pub fn become_older() {
    let lacking = lacking();
    if !lacking.is_empty() {
        refuse(&lacking, libc::ENOSYS);
    }
}

/// Lets the calling thread and its children live where these system calls fail.
pub fn refuse(calls: &[i64], errno: i32) {
    let filter = SeccompFilter::new(
        BTreeMap::from_iter(calls.iter().map(|&call| (call, Vec::new()))),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    apply_filter(&program).unwrap();
}

/// Whether the filesystem of `dir` takes the marks of an ordinary user's overlays, as a tmpfs does
/// since Linux 6.6. Without them a masked directory is not in the view, instead of being empty.
pub fn takes_user_attributes(dir: &std::path::Path) -> bool {
    use rustix::{fs::XattrFlags, io::Errno};
    match rustix::fs::setxattr(dir, c"user.reaper-test", b"y", XattrFlags::empty()) {
        Ok(()) => true,
        Err(Errno::OPNOTSUPP) => false,
        Err(errno) => panic!("set an attribute of {}: {errno}", dir.display()),
    }
}
