//! A caller that has all that a workload must not get.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{libc, pty::openpty};

/// The name of a key in the caller's session keyring, which only its possessors see.
pub(crate) const KEY: &str = "reaper-test-secret";

/// Has `command` called with another session keyring, a controlling terminal, signals blocked and
/// ignored, an open file, a umask, a scheduling and securebits of its own. The terminal is to be
/// kept until the command has ended.
pub(crate) fn make_hostile(command: &mut Command) -> OwnedFd {
    let pty = openpty(None, None).unwrap();
    let slave = pty.slave;
    let become_hostile = move || {
        let get_key = || {
            const JOIN: libc::c_long = 1;
            const SET_PERMISSIONS: libc::c_long = 5;
            const SESSION: libc::c_int = -3;
            const POSSESSOR_ALL: libc::c_long = 0x3f00_0000;
            // SAFETY: the texts are terminated by a zero byte and outlive the calls.
            unsafe {
                libc::syscall(libc::SYS_keyctl, JOIN, c"callers-session".as_ptr());
                let key = libc::syscall(
                    libc::SYS_add_key,
                    c"user".as_ptr(),
                    c"reaper-test-secret".as_ptr(),
                    c"s3cret".as_ptr(),
                    6,
                    SESSION,
                );
                libc::syscall(libc::SYS_keyctl, SET_PERMISSIONS, key, POSSESSOR_ALL)
            }
        };
        // SAFETY: system calls with numbers, and with memory that outlives them.
        unsafe {
            libc::setsid();
            libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0);
            libc::dup2(slave.as_raw_fd(), 9);
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR2] {
                libc::signal(signal, libc::SIG_IGN);
            }
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut blocked, libc::SIGUSR1);
            libc::sigaddset(&raw mut blocked, libc::SIGALRM);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut());
            libc::umask(0o077);
            let priority: libc::sched_param = std::mem::zeroed();
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority);
            libc::setpriority(libc::PRIO_PROCESS, 0, 5);
            let mut first: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut first);
            libc::sched_setaffinity(0, size_of_val(&first), &raw const first);
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            const NO_SETUID_FIXUP: libc::c_int = 4;
            libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP);
        }
        match get_key() {
            ..0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure makes system calls and allocates nothing.
    unsafe { command.pre_exec(become_hostile) };
    pty.master
}
