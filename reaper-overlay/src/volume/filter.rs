//! Which mounts of a bundle mean something here.

use std::path::Path;

use reaper_spec::{DnsMode, Mount};

use crate::contract::ViewRequest;

/// Whose content `dns` decides about.
const NAME_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Where engines mount the cgroups.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

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

/// The mounts of `request` that mean something here.
pub(crate) fn wanted(request: &ViewRequest) -> impl Iterator<Item = &Mount> {
    let mounts = request.mounts.iter();
    mounts.filter(|mount| is_supported(mount, request.dns))
}

/// Whether a mount of the bundle has a meaning here: `/proc`, `/sys`, `/dev` and `/run` are the
/// host's, so what an engine mounts there by default to make them the container's own has none.
fn is_supported(mount: &Mount, dns: DnsMode) -> bool {
    let to = mount.destination.as_path();
    if NAME_FILES.iter().any(|file| to == Path::new(file)) {
        return dns == DnsMode::Pod;
    }
    let bind = mount
        .options
        .iter()
        .any(|option| option == "bind" || option == "rbind");
    match mount.typ.as_deref() {
        Some("proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "devpts" | "devtmpfs")
            if !bind =>
        {
            false
        }
        Some("tmpfs") if !bind => {
            !["/dev", "/run", "/proc", "/sys"]
                .iter()
                .any(|tree| to == Path::new(tree))
                && to != Path::new("/dev/shm")
                && !to.starts_with("/proc")
                && !to.starts_with("/sys")
        }
        // Engines bind the host's `/sys/fs/cgroup`; it is there already.
        _ => !to.starts_with("/sys/fs/cgroup"),
    }
}
