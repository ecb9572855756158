//! What the mounts of a bundle mean here.
//!
//! `/proc`, `/sys`, `/dev` and `/run` are the host's in every view. What an engine mounts there by default, to give
//! its container its own, is not mounted; the options of such a mount hold for the host's tree in the container's
//! own view. All else is mounted, or refused by name.

use std::path::Path;

use reaper_spec::{DnsMode, Mount};

use crate::contract::ViewRequest;

/// Whose content `dns` decides about.
const NAME_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Where engines mount the cgroups.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// Whether it is one of the files that say where names lead.
pub(crate) fn is_name_file(path: &Path) -> bool {
    NAME_FILES.iter().any(|file| path == Path::new(file))
}

/// The mounts of `request` that are made for its container.
pub(crate) fn wanted(request: &ViewRequest) -> impl Iterator<Item = &Mount> {
    let is_hosts = |mount: &Mount| request.dns == DnsMode::Host && is_name_file(&mount.destination);
    let mounts = request.mounts.iter();
    mounts.filter(move |mount| engines_tree(mount).is_none() && !is_hosts(mount))
}

/// The path of a mount that engines make by default, of which the view has the host's own there. The second
/// value is whether an engine makes it to give its container a place for its own files.
pub(crate) fn engines_tree(mount: &Mount) -> Option<(&Path, bool)> {
    let to = mount.destination.to_str().filter(|_| !mount.is_bind())?;
    let is_scratch = match (mount.typ.as_deref()?, to) {
        ("proc", "/proc")
        | ("sysfs", "/sys")
        | ("cgroup" | "cgroup2", CGROUPS)
        | ("mqueue", "/dev/mqueue")
        | ("devpts", "/dev/pts")
        | ("tmpfs", "/dev/shm") => false,
        ("tmpfs", "/dev" | "/run") | ("devtmpfs", "/dev") => true,
        _ => return None,
    };
    Some((&mount.destination, is_scratch))
}
