//! A process that cannot be killed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reaper_spec::ProcessIdentity;

/// A process in a frozen cgroup of version 1, which is in an uninterruptible sleep.
pub(crate) struct Frozen(PathBuf);

impl Frozen {
    /// Moves the process to a cgroup of this name. `None` where there is no such freezer.
    pub(crate) fn new(name: &str, process: &ProcessIdentity) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup/freezer").join(name.trim_start_matches('/'));
        fs::create_dir(&path).ok()?;
        let frozen = Self(path);
        fs::write(frozen.0.join("cgroup.procs"), process.pid.to_string()).unwrap();
        fs::write(frozen.0.join("freezer.state"), "FROZEN").unwrap();
        let is_frozen =
            || fs::read_to_string(frozen.0.join("freezer.state")).unwrap() == "FROZEN\n";
        while !is_frozen() {
            std::thread::yield_now();
        }
        Some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
        while self.0.exists() && fs::remove_dir(&self.0).is_err() {
            std::thread::yield_now();
        }
    }
}
