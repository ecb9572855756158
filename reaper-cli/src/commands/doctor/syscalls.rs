//! System calls that have no safe wrapper elsewhere, made to see whether the kernel has them.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rustix::io::Errno;

/// `listmount(2)` and `statmount(2)`, by the numbers that they have on every architecture of Rust's.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;

/// The root of the mount namespace (`LSMT_ROOT`).
const MOUNT_ROOT: u64 = u64::MAX;
/// `STATMOUNT_SB_BASIC`.
const STATMOUNT_BASIC: u64 = 1;

/// `struct mnt_id_req`.
#[repr(C)]
struct MountRequest {
    size: u32,
    spare: u32,
    id: u64,
    param: u64,
}

impl MountRequest {
    fn new(id: u64, param: u64) -> Self {
        Self {
            size: 24,
            spare: 0,
            id,
            param,
        }
    }
}

/// The number of the first mount below the root of the mount namespace.
pub(super) fn listmount() -> Result<u64, Errno> {
    let request = MountRequest::new(MOUNT_ROOT, 0);
    let mut ids = [0_u64; 1];
    // SAFETY: the request has the size that it says, the kernel writes at most the one number that
    // there is room for, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            SYS_LISTMOUNT,
            &raw const request,
            ids.as_mut_ptr(),
            ids.len(),
            0,
        )
    };
    answer(result).map(|_| ids[0])
}

/// Closes nothing: there are no descriptors of these numbers.
pub(super) fn close_range() -> Result<(), Errno> {
    // SAFETY: close_range(2) takes plain numbers, and none of these is open.
    let result = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX - 1, u32::MAX, 0) };
    answer(result).map(drop)
}

/// Asks for the mount with this number.
pub(super) fn statmount(id: u64) -> Result<(), Errno> {
    let request = MountRequest::new(id, STATMOUNT_BASIC);
    let mut buffer = [0_u64; 128];
    // SAFETY: the request has the size that it says, the kernel writes at most as many bytes as the
    // buffer has, which is aligned like `struct statmount`, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            buffer.as_mut_ptr(),
            size_of_val(&buffer),
            0,
        )
    };
    answer(result).map(drop)
}

/// Makes the mount that `tree` is the root of read-only.
pub(super) fn mount_setattr(tree: BorrowedFd<'_>) -> Result<(), Errno> {
    let wanted = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the empty path is a NUL-terminated string, `wanted` has the size that is given, and
    // both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const wanted,
            size_of_val(&wanted),
        )
    };
    answer(result).map(drop)
}

/// Asks for a process in the cgroup of `not_a_cgroup`, which is none: a kernel that has
/// `CLONE_INTO_CGROUP` says `EBADF`, and in no case is there a process.
pub(super) fn clone_into_cgroup(not_a_cgroup: BorrowedFd<'_>) -> Result<(), Errno> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // `struct clone_args`: flags first, the signal of its end fifth, the cgroup last.
    let mut arguments = [0_u64; 11];
    arguments[0] = INTO_CGROUP;
    arguments[4] = libc::SIGCHLD as u64;
    arguments[10] = not_a_cgroup.as_raw_fd() as u64;
    // SAFETY: the arguments have the size that is given and outlive the call, which fails: the
    // descriptor is no cgroup's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    match answer(result) {
        Err(Errno::BADF) => Ok(()),
        Err(errno) => Err(errno),
        // The child of a kernel that ignores the flag: it must not go on as a second doctor.
        // SAFETY: _exit(2) has no precondition.
        Ok(0) => unsafe { libc::_exit(0) },
        Ok(_) => Err(Errno::INVAL),
    }
}

/// Sends no signal to a process, which says whether one could be sent.
pub(super) fn pidfd_send_signal(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: plain numbers, and no information about the signal.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    answer(result).map(drop)
}

fn answer(result: libc::c_long) -> Result<libc::c_long, Errno> {
    nix::errno::Errno::result(result).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}
