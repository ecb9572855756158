//! Directories of this machine that a test has to itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// An empty directory in the place of this machine's, until it is dropped.
#[derive(Debug)]
pub struct EmptyDirectory {
    path: PathBuf,
    was_made: bool,
}

impl EmptyDirectory {
    /// Has this thread, and what it starts from now on, another directory at `path`.
    pub fn at(path: &Path) -> Self {
        let was_made = fs::create_dir(path).is_ok();
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mounts");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).expect("make the mounts private");
        mount(Some("test"), path, Some("tmpfs"), MsFlags::empty(), none).expect("mount a tmpfs");
        Self {
            path: path.to_owned(),
            was_made,
        }
    }
}

impl Drop for EmptyDirectory {
    fn drop(&mut self) {
        // What fails here goes with the namespace, but for an empty directory.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        if self.was_made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}
