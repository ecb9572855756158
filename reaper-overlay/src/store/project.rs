//! The project of a scope's layers in a base on a disk.
//!
//! The directory of the layers is in the project without handing it on, so the table beside them takes nothing
//! of the quota. It also is the only record of the number: one that has no file on the filesystem is free.
//! There is no list that a killed process could leave wrong, and several bases may share a filesystem.

use std::{
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io, iter,
    path::Path,
};

use crate::{
    contract::{Context, Error},
    linux::project::{is_enforced, project, quota, set_project, set_quota},
};

/// The first number that is Reaper's. Those of the kubelet begin at 1048577, and those that people
/// write to /etc/projects are small.
const FIRST: u32 = 0x5000_0000;

/// How many there are.
const COUNT: u32 = 1 << 28;

/// How many are tried: with even half of them taken, so many in a row are not.
const ATTEMPTS: usize = 256;

/// How many bytes of a limit there are for each file that it allows: what the smallest one with content takes.
/// So empty files cannot take all inodes of the disk.
const BYTES_PER_FILE: u64 = 4096;

/// The files that are allowed besides, which those are among that Reaper makes.
const SPARE_FILES: u64 = 4096;

/// A project of Reaper's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Project(u32);

impl Project {
    /// The project of `dir`; `None` if it has none of Reaper's, or does not exist.
    pub(crate) fn of(dir: &Path) -> Result<Option<Self>, Error> {
        let file = match File::open(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context("open", dir)?,
        };
        let found = project(&file).context("look for the project of", dir)?;
        Ok((FIRST..FIRST + COUNT)
            .contains(&found)
            .then_some(Self(found)))
    }

    /// Finds a free project and gives it to the directory `dir`, without a limit.
    ///
    /// Another process may choose the same one at the same time, also for another base. Each looks at how many
    /// files there are once its directory has it: at most one finds its own alone.
    pub(crate) fn claim(dir: &Path) -> Result<Self, Error> {
        Self::claim_one_of(dir, iter::repeat_with(candidate).take(ATTEMPTS))
    }

    fn claim_one_of(dir: &Path, candidates: impl Iterator<Item = u32>) -> Result<Self, Error> {
        let file = File::open(dir).context("open", dir)?;
        for id in candidates {
            if quota(&file, id).context("look at the quota of", dir)?.files > 0 {
                continue;
            }
            set_project(&file, id, false).context("set the project of", dir)?;
            if quota(&file, id).context("look at the quota of", dir)?.files == 1 {
                let claimed = Self(id);
                claimed.lift(dir)?;
                return Ok(claimed);
            }
            set_project(&file, 0, false).context("set the project of", dir)?;
        }
        let all_used = io::Error::other(
            "each project that was tried has files: look for who uses those from 0x50000000 to 0x5fffffff (repquota -P)",
        );
        Err(all_used).context("find a free project for", dir)
    }

    /// Gives it to an empty directory, and to all that will be made in there.
    pub(crate) fn give(self, dir: &Path) -> Result<(), Error> {
        let file = File::open(dir).context("open", dir)?;
        set_project(&file, self.0, true).context("set the project of", dir)
    }

    /// The limit in bytes on the filesystem of `dir`; `None` if there is none, or the kernel enforces none
    /// there now.
    pub(crate) fn limit(self, dir: &Path) -> Result<Option<u64>, Error> {
        if !is_enforced(dir)? {
            return Ok(None);
        }
        let file = File::open(dir).context("open", dir)?;
        let found = quota(&file, self.0).context("look at the quota of", dir)?;
        Ok(found.limit)
    }

    /// Sets the limit.
    pub(crate) fn set_limit(self, dir: &Path, bytes: u64) -> Result<(), Error> {
        let file = File::open(dir).context("open", dir)?;
        let files = SPARE_FILES + bytes / BYTES_PER_FILE;
        set_quota(&file, self.0, bytes, files).context("set the quota of", dir)
    }

    /// Takes the limit away, if there is one.
    pub(crate) fn lift(self, dir: &Path) -> Result<(), Error> {
        let file = File::open(dir).context("open", dir)?;
        // Which error says that there are no quotas now depends on the filesystem.
        let found = quota(&file, self.0).unwrap_or_default();
        if found.limit.is_none() {
            return Ok(());
        }
        set_quota(&file, self.0, 0, 0).context("lift the quota of", dir)
    }
}

/// A project to try, which a workload cannot foresee and take before.
fn candidate() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    // Less than COUNT, which fits.
    FIRST + (random % u64::from(COUNT)) as u32
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, thread};

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    /// Runs `test` on a new disk with quotas of projects, in a separate mount namespace, if this machine has them.
    fn on_a_disk(test: impl FnOnce(&Path) + Send + 'static) {
        let isolated = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join("image");
            let at = dir.path().join("at");
            fs::create_dir(&at).unwrap();
            let size = 32 << 20;
            File::create(&image).unwrap().set_len(size).unwrap();
            let succeeds = |command: &mut Command| {
                command.output().is_ok_and(|output| output.status.success())
            };
            let make = ["-q", "-O", "quota,project"];
            let is_mounted = succeeds(Command::new("mkfs.ext4").args(make).arg(&image))
                && succeeds(
                    Command::new("mount")
                        .args(["-o", "loop,prjquota"])
                        .args([&image, &at]),
                );
            let is_needed = Path::new("/run/lab/options").exists();
            assert!(is_mounted || !is_needed, "run tests/provision vm");
            if !is_mounted {
                eprintln!("not tried: no quotas of projects");
                return;
            }
            test(&at);
            nix::mount::umount(&at).unwrap();
        };
        thread::spawn(isolated).join().unwrap();
    }

    #[test]
    fn project_that_has_files_is_not_taken() {
        on_a_disk(|disk| {
            let [first, second] = ["first", "second"].map(|name| disk.join(name));
            for dir in [&first, &second] {
                fs::create_dir(dir).unwrap();
            }
            let one_of = |dir: &Path, ids: &[u32]| Project::claim_one_of(dir, ids.iter().copied());
            let (taken, free) = (FIRST + 7, FIRST + 8);
            assert_eq!(one_of(&first, &[taken]).unwrap(), Project(taken));
            let error = one_of(&second, &[taken; 3]).unwrap_err().to_string();
            assert!(
                error.contains("each project that was tried has files"),
                "{error}"
            );
            assert_eq!(Project::of(&second).unwrap(), None);
            assert_eq!(one_of(&second, &[taken, free]).unwrap(), Project(free));
            // What it was given is free again once it has no file.
            fs::remove_dir(&first).unwrap();
            fs::create_dir(&first).unwrap();
            assert_eq!(one_of(&first, &[taken]).unwrap(), Project(taken));
        });
    }
}
