//! Whose a container's cgroup is.
//!
//! A bundle may name a cgroup that is there: an admin's, another runtime's, or one that another
//! container was given at the same moment. An extended attribute names the monitor of the container that has
//! it. A cgroup that was there before and is no container's can be used by one container at a time, and stays
//! when that is gone: the attribute says so, for a container that has it after one whose monitor was killed.
//!
//! mkdir(2) cannot give the attribute, but a mode that tells a cgroup which another container is just making from
//! one that was there. Which of those that see it so has it is decided by the attribute.

use std::{fs::File, io, path::Path};

use reaper_spec::ProcessIdentity;
use rustix::fs::{FlockOperation, XattrFlags, flock, getxattr, removexattr, setxattr};

use super::{error::Error, folder, subtree};
use crate::procfs;

/// Where the claim is written. `trusted` needs `CAP_SYS_ADMIN`, `user` needs Linux 5.7.
const NAMES: [&str; 2] = ["trusted.reaper.monitor", "user.reaper.monitor"];

/// The last word of a claim on a cgroup that was there before.
const STAYS: &str = "stays";

/// For whom cgroups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    owner: ProcessIdentity,
    is_named: bool,
}

impl Claim {
    /// For the container of the monitor `owner`. `is_named` says that the bundle names the cgroup, so
    /// that one which is there can be another's: those below `/reaper` are containers' alone.
    pub fn new(owner: ProcessIdentity, is_named: bool) -> Self {
        Self { owner, is_named }
    }

    /// What is written: a cgroup does not outlive the boot.
    fn text(&self, stays: bool) -> String {
        let text = format!("{} {}", self.owner.pid, self.owner.start_time);
        match stays {
            true => format!("{text} {STAYS}"),
            false => text,
        }
    }

    /// Writes it, unless another container's is there: then it is `false`. `None` where nothing can be written.
    fn write(&self, cgroup: &Path, stays: bool) -> Result<Option<bool>, Error> {
        let text = self.text(stays);
        for name in NAMES {
            match setxattr(cgroup, name, text.as_bytes(), XattrFlags::CREATE) {
                Ok(()) => return Ok(Some(true)),
                Err(rustix::io::Errno::EXIST) if stays => {
                    return self.replace(cgroup, name, &text).map(Some);
                }
                // Had by another container, or given up by it since it was looked at.
                Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOENT) => return Ok(Some(false)),
                Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(Error::io("mark cgroup", cgroup)(error.into())),
            }
        }
        Ok(None)
    }

    /// Replaces the claim of a container whose monitor was killed, unless another container does so.
    fn replace(&self, cgroup: &Path, name: &str, text: &str) -> Result<bool, Error> {
        let failed = |error| Error::io("mark cgroup", cgroup)(error);
        let folder = File::open(cgroup).map_err(failed)?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(failed(error.into())),
        }
        if self.is_lost(cgroup) {
            return Ok(false);
        }
        let written = setxattr(cgroup, name, text.as_bytes(), XattrFlags::empty());
        written.map(|()| true).map_err(|error| failed(error.into()))
    }

    /// Whether another container that has a monitor has claimed the cgroup.
    fn is_contested(&self, found: &str) -> bool {
        let mut numbers = found.split(' ');
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let (Some(pid), Some(start_time)) = (number(), number()) else {
            return false;
        };
        let owner = ProcessIdentity {
            pid: u32::try_from(pid).unwrap_or(0),
            start_time,
            boot_id: self.owner.boot_id.clone(),
        };
        owner != self.owner && procfs::is_alive(&owner)
    }

    /// Looks whether the cgroup at `path` can be had, and whether it will stay.
    ///
    /// # Errors
    /// [`Error::Populated`] for one with processes, of which `is_populated` is told by the hierarchy's
    /// version; [`Error::Claimed`]; [`Error::Io`].
    pub(super) fn look(
        &self,
        path: &Path,
        is_populated: impl Fn() -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        if is_populated()? {
            return Err(Error::Populated(path.to_owned()));
        }
        match self.found(path) {
            Found::Claimed => Err(Error::Claimed(path.to_owned())),
            found => Ok(found == Found::Admins),
        }
    }

    /// Makes the cgroup at `path` below `root` or, if it `stays`, takes the one that was there when it
    /// was looked at. What an earlier container has left is made anew, so that none of its limits is
    /// left.
    ///
    /// # Errors
    /// As of [`look`](Self::look).
    pub(super) fn take(
        &self,
        path: &Path,
        root: &Path,
        stays: bool,
        is_populated: impl Fn() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let is_own = stays || folder::make(path, root)? || {
            if is_populated()? {
                return Err(Error::Populated(path.to_owned()));
            }
            match self.found(path) {
                Found::New => false,
                Found::Left => {
                    subtree::remove(path)?;
                    folder::make(path, root)?
                }
                Found::Claimed | Found::Admins => return Err(Error::Claimed(path.to_owned())),
            }
        };
        // Where nothing can be written, it is had by who has made it.
        match self.write(path, stays)?.unwrap_or(is_own) {
            true => Ok(()),
            false => Err(Error::Claimed(path.to_owned())),
        }
    }

    /// Whose the cgroup at `path` is, if there is one.
    fn found(&self, path: &Path) -> Found {
        match read(path) {
            Some(found) if self.is_contested(&found) => Found::Claimed,
            Some(found) if found.split(' ').nth(2) == Some(STAYS) => Found::Admins,
            None if self.is_named && path.exists() => match folder::is_for_container(path) {
                true => Found::New,
                false => Found::Admins,
            },
            _ => Found::Left,
        }
    }

    /// Whether another container has the cgroup by now.
    pub(super) fn is_lost(&self, path: &Path) -> bool {
        read(path).is_some_and(|found| self.is_contested(&found))
    }
}

/// Whose a cgroup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Another container's, which has a monitor.
    Claimed,
    /// One that was there before any container had it.
    Admins,
    /// One that was made for a container, which has not claimed it yet.
    New,
    /// What an earlier container has left, or nothing.
    Left,
}

fn read(cgroup: &Path) -> Option<String> {
    let mut buffer = [0_u8; 64];
    let length = NAMES
        .iter()
        .find_map(|&name| getxattr(cgroup, name, &mut buffer[..]).ok())?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Gives up a cgroup that stays.
pub(super) fn release(cgroup: &Path) -> Result<(), Error> {
    for name in NAMES {
        match removexattr(cgroup, name).map_err(io::Error::from) {
            Ok(()) => return Ok(()),
            // Not claimed, not allowed or not known, or gone.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENODATA | libc::EPERM | libc::EOPNOTSUPP | libc::ENOENT)
                ) => {}
            Err(error) => return Err(Error::io("unmark cgroup", cgroup)(error)),
        }
    }
    Ok(())
}
