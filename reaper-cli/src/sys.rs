//! What needs `unsafe`.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    unistd::{ForkResult, fork},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Whether standard output was open when this program began.
static STDOUT_WAS_OPEN: AtomicBool = AtomicBool::new(true);

/// Looks at standard output before Rust's runtime does, which opens `/dev/null` in the place of a
/// standard stream that is closed: writes would then succeed, and go nowhere.
extern "C" fn look_at_stdout() {
    // SAFETY: fcntl(2) with F_GETFD takes plain numbers. It needs nothing that is set up later.
    let flags = unsafe { nix::libc::fcntl(1, nix::libc::F_GETFD) };
    STDOUT_WAS_OPEN.store(flags != -1, Ordering::Relaxed);
}

// SAFETY: the C library calls the functions of this section, which take no argument that is needed
// here, before main; this one touches nothing but an atomic.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;

/// Whether standard output was open when this program began.
pub(crate) fn stdout_was_open() -> bool {
    STDOUT_WAS_OPEN.load(Ordering::Relaxed)
}

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
