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
    unistd::{Pid, pause},
};

use crate::sys;

/// A child that does nothing. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: Pid,
    /// The cgroup that was made for it alone.
    folder: Option<PathBuf>,
}

impl Placeholder {
    pub(crate) fn new() -> io::Result<Self> {
        match sys::fork()? {
            Some(pid) => Ok(Self { pid, folder: None }),
            None => {
                // It has copies of all that the monitor holds, and must not outlive it.
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                let _ = sys::close_range(0, i32::MAX);
                loop {
                    pause();
                }
            }
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
