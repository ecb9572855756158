//! The kernel's filesystems whose content is that of the namespaces of the process that mounts them: sysfs,
//! of which a part is the network's, and proc, which shows the processes of a pid namespace.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use super::{bind::bind, interface::Recursion};
use crate::{
    contract::{Context, Error, ViewRequest},
    linux::{handle::fd_link, mountinfo, resolve::in_view},
};

const SYS: &str = "/sys";
const PROC: &str = "/proc";

/// Which of them a container has of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnTrees {
    /// `/sys`.
    pub(crate) network: bool,
    /// `/proc`.
    pub(crate) pids: bool,
}

impl OwnTrees {
    pub(crate) fn of(request: &ViewRequest) -> Self {
        Self {
            network: request.own_network,
            pids: request.own_pids,
        }
    }

    pub(crate) fn any(self) -> bool {
        self.network || self.pids
    }

    /// Covers them in the calling process's own copy of the mounts.
    pub(crate) fn renew(self) -> Result<(), Error> {
        if self.network {
            renew("sysfs", SYS, "mount a sysfs of its network on")?;
        }
        if self.pids {
            renew("proc", PROC, "mount a proc of its pid namespace on")?;
        }
        Ok(())
    }
}

/// Covers the filesystem of this type on `place` by one of the calling process's namespaces, with the same
/// options and with all that is mounted below.
///
/// No option of the superblock is taken over: `hidepid` is the host's choice for the host's processes.
fn renew(fs_type: &str, place: &str, operation: &'static str) -> Result<(), Error> {
    let mounts = mountinfo::read()?;
    let is_it = |mount: &&mountinfo::MountInfo| {
        mount.mount_point == Path::new(place) && mount.fs_type == fs_type
    };
    // The last one is on top.
    let Some(old) = mounts.iter().rfind(is_it) else {
        return Ok(());
    };
    let mut below: Vec<(PathBuf, OwnedFd)> = Vec::new();
    for place in mounts.iter().filter(|mount| mount.parent == old.id) {
        let path = place.mount_point.clone();
        if below.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let place = in_view::open(&path).context("open", &path)?;
        below.push((path, place));
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    flags.set(
        MountFlags::RDONLY,
        old.options.iter().any(|one| one == "ro"),
    );
    mount(fs_type, place, fs_type, flags, None).context(operation, place)?;
    for (path, place) in below {
        match bind(&fd_link(&place), &path, Recursion::All) {
            // What is mounted in the folder of a process, which is not there.
            Err(Errno::NOENT) if fs_type == "proc" => {}
            bound => bound.context("show again", path)?,
        }
    }
    Ok(())
}
