//! The one thing here that needs `unsafe`: code between fork(2) and execve(2).
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::SigSet,
};

/// Lets the command inherit `files` as descriptors 3, 4 and 5, and nothing else from 6 on, with no
/// signal blocked or ignored.
///
/// The returned descriptors must live until the command was spawned: they keep 3, 4 and 5 from
/// being used for the pipe by which the standard library reports a failing execve(2).
pub(super) fn inherit_three(
    command: &mut Command,
    files: [OwnedFd; 3],
) -> io::Result<Vec<OwnedFd>> {
    let mut reserved = Vec::new();
    loop {
        let spare = duplicate(&files[0], 3)?;
        if spare.as_raw_fd() > 5 {
            break;
        }
        reserved.push(spare);
    }
    let [first, second, third] = files;
    // Above 5, so that no dup2(2) overwrites the source of the next.
    let files = [
        duplicate(&first, 6)?,
        duplicate(&second, 6)?,
        duplicate(&third, 6)?,
    ];
    let prepare = move || {
        for (target, file) in (3..).zip(&files) {
            // SAFETY: dup2(2) is async-signal-safe; the source is open, for the closure owns it.
            // What was at the target belongs to nobody in this process, which is about to execute
            // another program.
            if unsafe { libc::dup2(file.as_raw_fd(), target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: a system call with integer arguments, which touches no memory. Close-on-exec
        // leaves the standard library's own pipe usable. A kernel without it (before 5.11) has
        // only descriptors that were opened close-on-exec.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                6u32,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        for signal in 1..=libc::SIGRTMAX() {
            // SAFETY: async-signal-safe; SIG_DFL is a valid disposition for every signal, and
            // those that cannot be changed report EINVAL.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        SigSet::empty().thread_set_mask().map_err(io::Error::from)
    };
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    Ok(reserved)
}

fn duplicate(fd: &OwnedFd, minimum: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(minimum))?;
    // SAFETY: fcntl(2) has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
