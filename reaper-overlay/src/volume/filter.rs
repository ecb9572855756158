//! Which mounts of a bundle mean something here.

use std::path::Path;

use reaper_spec::{DnsMode, Mount};

use crate::contract::ViewRequest;

/// Whose content `dns` decides about.
const NAME_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

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
