//! Where the working directory of a process lies that a runtime has made.
//!
//! Runtimes enter it with their own rights, and not all of them see that a link of the image, or the spec itself,
//! names another process's files (`/proc/PID/root`). So it is looked at where they have arrived.

use std::{fs, io, os::fd::AsRawFd as _};

use rustix::fs::{Mode, OFlags, open};

use crate::protocol::Failure;

/// How often a process may be found between two mount namespaces before it counts as outside: one that has been
/// started may be making its own.
const LOOKS: usize = 3;

/// Fails if the working directory of the process lies in none of the process's own mounts.
pub(crate) fn check_inside(pid: u32) -> Result<(), Failure> {
    for _ in 0..LOOKS {
        match is_inside(pid) {
            Ok(false) => {}
            Ok(true) => return Ok(()),
            // It has exited, or is of another user's: then the runtime had no more rights than the process.
            Err(_) => return Ok(()),
        }
    }
    Err(Failure::Setup {
        step: "enter the working directory".to_owned(),
        message: "it leads out of the container".to_owned(),
        errno: None,
    })
}

fn is_inside(pid: u32) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(format!("/proc/{pid}/cwd"), flags, Mode::empty())?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", directory.as_raw_fd()))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let mount = mount.map(str::trim).ok_or(io::ErrorKind::InvalidData)?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').next() == Some(mount)))
}
