//! The first process of a scope, which systemd starts with a process only.
//!
//! Init itself is born in a cgroup below the scope, which has to be there before. So a child that does
//! nothing keeps the scope until then.

use std::{fs, io, path::PathBuf};

use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, getpid, getppid, pause},
};

use crate::{descriptors::close_range, sys};

/// A child that does nothing. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: Pid,
    /// The cgroup that was made for it alone.
    folder: Option<PathBuf>,
}

impl Placeholder {
    pub(crate) fn new() -> io::Result<Self> {
        let monitor = getpid();
        match sys::fork()? {
            Some(pid) => Ok(Self { pid, folder: None }),
            None => keep(monitor),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Moves it into a cgroup of its own, which is made: controllers can be enabled only below a
    /// cgroup without processes.
    pub(crate) fn move_into(&mut self, folder: PathBuf) -> io::Result<()> {
        fs::create_dir(&folder)?;
        let procs = folder.join("cgroup.procs");
        self.folder = Some(folder);
        fs::write(procs, self.pid.to_string())
    }
}

/// Does nothing as long as the monitor lives, of which this process has copies of all that it holds.
fn keep(monitor: Pid) -> ! {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // One that was killed before that has no child any more that the kernel would tell.
    if getppid() != monitor {
        sys::exit_now(0);
    }
    let _ = close_range(0, i32::MAX);
    loop {
        pause();
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It is a child that was not reaped, so its pid is its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        // systemd removes what is left with the scope.
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitPidFlag, WaitStatus};

    use super::*;

    #[test]
    fn a_placeholder_ends_with_its_monitor_whenever_that_was_killed() {
        sys::alone(|| {
            // Killed before its child has asked to be told: the child has another parent.
            let child = sys::fork().expect("fork");
            let Some(child) = child else {
                keep(Pid::from_raw(i32::MAX));
            };
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));

            // Killed afterwards: this process inherits what it leaves.
            prctl::set_child_subreaper(true).expect("a subreaper");
            let (reader, writer) = nix::unistd::pipe().expect("a pipe");
            let Some(monitor) = sys::fork().expect("fork") else {
                let placeholder = Placeholder::new().expect("a placeholder");
                let pid = placeholder.pid().to_ne_bytes();
                nix::unistd::write(&writer, &pid).expect("its number");
                loop {
                    pause();
                }
            };
            let mut pid = [0; 4];
            nix::unistd::read(&reader, &mut pid).expect("its number");
            let placeholder = Pid::from_raw(i32::from_ne_bytes(pid));
            assert_eq!(
                waitpid(placeholder, Some(WaitPidFlag::WNOHANG)),
                Err(nix::errno::Errno::ECHILD),
                "it is not this process's child yet"
            );
            kill(monitor, Signal::SIGKILL).expect("kill");
            assert!(waitpid(monitor, None).is_ok());
            let end = waitpid(placeholder, None).expect("it ends");
            assert!(matches!(
                end,
                WaitStatus::Signaled(_, Signal::SIGKILL, _) | WaitStatus::Exited(_, 0)
            ));
        });
    }
}
