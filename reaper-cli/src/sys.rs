//! What needs `unsafe`.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    unistd::{ForkResult, fork},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Which side of a fork this is.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The old one, with the pid of the new one.
    Parent(nix::unistd::Pid),
}

/// Forks a process that has one thread.
///
/// # Panics
/// If there are more: what they hold would be held for ever in the child.
pub(crate) fn fork_single_threaded() -> io::Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "a fork of a process with several threads");
    // SAFETY: there is no other thread that could hold a lock or be in the middle of a change, so
    // the child may do all that the parent may.
    match unsafe { fork() }? {
        ForkResult::Child => Ok(Side::Child),
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
    }
}

/// A close-on-exec duplicate of a descriptor that the caller of this program may have handed
/// over; `None` if it is not open.
pub(crate) fn duplicate(number: RawFd) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the descriptor is borrowed for the length of this call only. If it is not open,
    // the call returns EBADF; this process has one thread, so none can close it meanwhile.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    match borrowed.try_clone_to_owned() {
        Ok(duplicate) => Ok(Some(duplicate)),
        Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Closes the descriptors from `first` to `last` that are open.
///
/// They must be the caller's of this program, which nothing in it owns: closing what something
/// owns would hand its number to another file.
pub(crate) fn close_inherited(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: close_range(2) takes plain numbers and touches no memory; that no
    // value of this program owns them is the contract of this function.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, last, 0) };
    match Errno::result(result) {
        // Before Linux 5.9, or as a seccomp filter says that does not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => close_each(first, last),
        closed => Ok(closed.map(drop)?),
    }
}

fn close_each(first: u32, last: u32) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: as above. The directory that was listed is closed already, which is not an error.
        unsafe { nix::libc::close(fd as RawFd) };
    }
    Ok(())
}

/// Watches an owned descriptor with the runtime's reactor.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, which is what
    // the reactor relies on.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// Ends this process by a signal, as if it had not been caught. Without a core: it is not this
/// process that went wrong.
pub(crate) fn exit_by_signal(signal: i32) -> ! {
    // A core that is dumped all the same is no reason to live on.
    let _ = nix::sys::prctl::set_dumpable(false);
    // SAFETY: SIG_DFL is no handler that could run; sigset_t may be all zeros, and is initialised
    // by sigemptyset; raise and sigprocmask take plain values.
    unsafe {
        nix::libc::signal(signal, nix::libc::SIG_DFL);
        let mut set: nix::libc::sigset_t = std::mem::zeroed();
        nix::libc::sigemptyset(&raw mut set);
        nix::libc::sigaddset(&raw mut set, signal);
        nix::libc::sigprocmask(nix::libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        nix::libc::raise(signal);
    }
    // It was one that does not end a process.
    std::process::exit(128 + signal);
}

/// System calls that `doctor` makes to see whether the kernel has them, for which there is no safe wrapper.
pub(crate) mod probe {
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
    pub(crate) fn listmount() -> Result<u64, Errno> {
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
    pub(crate) fn close_range() -> Result<(), Errno> {
        // SAFETY: close_range(2) takes plain numbers, and none of these is open.
        let result = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX - 1, u32::MAX, 0) };
        answer(result).map(drop)
    }

    /// Asks for the mount with this number.
    pub(crate) fn statmount(id: u64) -> Result<(), Errno> {
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

    /// Asks for a process in the cgroup of `not_a_cgroup`, which is none: a kernel that has
    /// `CLONE_INTO_CGROUP` says `EBADF`, and in no case is there a process.
    pub(crate) fn clone_into_cgroup(not_a_cgroup: BorrowedFd<'_>) -> Result<(), Errno> {
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
    pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
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
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::fd::IntoRawFd, thread};

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    #[test]
    fn inherited_descriptors_are_closed_without_close_range() {
        for errno in [nix::libc::ENOSYS, nix::libc::EPERM] {
            let filter = SeccompFilter::new(
                BTreeMap::from([(nix::libc::SYS_close_range, Vec::new())]),
                SeccompAction::Allow,
                SeccompAction::Errno(errno.unsigned_abs()),
                std::env::consts::ARCH.try_into().unwrap(),
            );
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            let (reader, writer) = io::pipe().unwrap();
            let inherited = u32::try_from(writer.into_raw_fd()).unwrap();
            // The filter holds for this thread alone.
            let closing = thread::spawn(move || {
                apply_filter(&program).unwrap();
                close_inherited(inherited, inherited)
            });
            closing.join().unwrap().unwrap();
            assert_eq!(
                io::read_to_string(reader).unwrap(),
                "",
                "the end of the pipe"
            );
        }
    }
}
