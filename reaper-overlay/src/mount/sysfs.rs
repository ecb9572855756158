//! The kernel's view of devices, of which a part is the network's.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};

use super::{bind::bind, interface::Recursion};
use crate::{
    contract::{Context, Error},
    linux::mountinfo,
};

const SYS: &str = "/sys";

/// Covers the sysfs in the calling process's own copy of the mounts by one that shows the network which the
/// process is in, with the same options and with all that is mounted below.
pub(crate) fn renew() -> Result<(), Error> {
    let mounts = mountinfo::read()?;
    let is_sysfs = |mount: &&mountinfo::MountInfo| {
        mount.mount_point == Path::new(SYS) && mount.fs_type == "sysfs"
    };
    // The last one is on top.
    let Some(old) = mounts.iter().rfind(is_sysfs) else {
        return Ok(());
    };
    let mut below: Vec<(PathBuf, File)> = Vec::new();
    for place in mounts.iter().filter(|mount| mount.parent == old.id) {
        let path = place.mount_point.clone();
        if below.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let place = File::options()
            .read(true)
            .custom_flags(nix::libc::O_PATH)
            .open(&path)
            .context("open", &path)?;
        below.push((path, place));
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    flags.set(
        MountFlags::RDONLY,
        old.options.iter().any(|one| one == "ro"),
    );
    mount("sysfs", SYS, "sysfs", flags, None).context("mount a sysfs of its network on", SYS)?;
    for (path, place) in below {
        let place = format!("/proc/self/fd/{}", place.as_raw_fd());
        bind(Path::new(&place), &path, Recursion::All).context("show again", path)?;
    }
    Ok(())
}
