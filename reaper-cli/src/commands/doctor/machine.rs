//! The kernel, what is mounted, and who asks.

use std::{fs, io, path::Path};

use reaper_exec::cgroup::{DeviceControl, Hierarchies};
use reaper_overlay::mountinfo::{self, MountInfo};
use reaper_spec::{CgroupMode, Config, DeviceMode};
use rustix::mount::FsOpenFlags;

use super::{super::finding::CheckResult, interfaces};
use crate::commands::{capabilities, output::size};

/// Less than that is soon full.
const LITTLE: u64 = 64 << 20;
/// The oldest kernel that Reaper is made for. What a newer one gives is tried, not known.
const OLDEST: (u32, u32) = (5, 10);

pub(super) fn examine(config: &Config) -> Vec<CheckResult> {
    let uname = rustix::system::uname();
    // Asking for it loads the kernel's module, as a container's start would.
    let _ = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
    let mut findings = vec![
        rights(nix::unistd::geteuid().is_root()),
        grantable(&capabilities::missing()),
        kernel(&uname.release().to_string_lossy()),
        overlay(
            config.overlay.enabled,
            &fs::read_to_string("/proc/filesystems").unwrap_or_default(),
        ),
        interfaces::examine(config),
        cgroups(config.cgroups, &mountinfo::read().unwrap_or_default()),
        devices(config),
        space("state", &config.state_root),
    ];
    if config.overlay.enabled {
        findings.push(space("overlay base", &config.overlay.base));
    }
    findings
}

fn rights(root: bool) -> CheckResult {
    if root {
        return CheckResult::good("rights", "root");
    }
    CheckResult::warning(
        "rights",
        "not root: containers run in a user namespace",
        "volumes, cgroups and other users need root: use sudo",
    )
}

fn grantable(missing: &[String]) -> CheckResult {
    if missing.is_empty() {
        return CheckResult::good("capabilities", "all of the kernel's can be granted");
    }
    CheckResult::warning(
        "capabilities",
        format!("cannot be granted here: {}", missing.join(", ")),
        "a container that asks for one of them starts without it: take it out of what limits this \
         program, such as CapabilityBoundingSet= of the service, or the container around it",
    )
}

fn kernel(release: &str) -> CheckResult {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        (0, _) => CheckResult::warning("kernel", release, "this is no version of Linux"),
        version if version < OLDEST => CheckResult::warning(
            "kernel",
            format!("{release}, older than 5.10"),
            "5.10 is the oldest kernel that Reaper is made for; what counts is how the trial ends",
        ),
        _ => CheckResult::good("kernel", release),
    }
}

fn overlay(enabled: bool, filesystems: &str) -> CheckResult {
    if !enabled {
        return CheckResult::warning(
            "overlay",
            "turned off: containers write to this machine itself",
            "to turn it on, take `enabled = false` out of the configuration's [overlay], or \
             REAPER_OVERLAY_ENABLED out of the environment",
        );
    }
    let known = |name: &str| filesystems.lines().any(|line| line.ends_with(name));
    if known("\toverlay") {
        return CheckResult::good("overlay", "the kernel has it");
    }
    CheckResult::problem(
        "overlay",
        "the kernel has no overlayfs, or cannot load it",
        "see what `modprobe overlay` says; without it set `enabled = false` in the configuration's \
         [overlay]",
    )
}

fn cgroups(mode: CgroupMode, mounts: &[MountInfo]) -> CheckResult {
    let hierarchy = mounts.iter().find(|mount| mount.fs_type == "cgroup2");
    let has_v1 = mounts.iter().any(|mount| mount.fs_type == "cgroup");
    let with_v1 = match has_v1 {
        true => ", limits and accounting by version 1",
        false => "",
    };
    match hierarchy {
        _ if mode == CgroupMode::Off => {
            CheckResult::good("cgroups", "not used: the configuration says so")
        }
        None if has_v1 => CheckResult::good(
            "cgroups",
            "version 1: frozen and killed process by process, which is exact but slower",
        ),
        None => CheckResult::warning(
            "cgroups",
            "no cgroup v2 is mounted",
            "without it limits cannot be set, and pause, figures and the end of what containers \
             left running are best effort: boot with systemd.unified_cgroup_hierarchy=1, or mount one with \
             `mount -t cgroup2 none /sys/fs/cgroup/unified`",
        ),
        Some(mount) if mount.options.iter().any(|option| option == "ro") => CheckResult::warning(
            "cgroups",
            format!("{} is read-only", mount.mount_point.display()),
            format!("`mount -o remount,rw {}`", mount.mount_point.display()),
        ),
        Some(mount) => {
            let found = format!("v2 on {}{with_v1}", mount.mount_point.display());
            CheckResult::good("cgroups", found)
        }
    }
}

/// Whether the device rules of containers can hold.
fn devices(config: &Config) -> CheckResult {
    if config.devices == DeviceMode::Node {
        return CheckResult::good("devices", "containers may open all: devices is \"node\"");
    }
    if config.cgroups != CgroupMode::Enforce {
        let mode = config.cgroups.as_str();
        let found = format!("containers may open all: cgroups is {mode:?}");
        return CheckResult::good("devices", found);
    }
    let hierarchies = Hierarchies::find();
    control(hierarchies.and_then(|hierarchies| DeviceControl::find(&hierarchies)))
}

fn control(found: io::Result<DeviceControl>) -> CheckResult {
    match found {
        Ok(DeviceControl::V1) => {
            CheckResult::good("devices", "rules hold by the controller of cgroup v1")
        }
        Ok(_) => CheckResult::good("devices", "rules hold by programs of the kernel (eBPF)"),
        Err(error) => CheckResult::warning(
            "devices",
            format!("rules for devices do not hold: {error}"),
            "a container may open all that its user may, and one that asks for devices by rules is \
             refused: run as root with CAP_SYS_ADMIN, on a kernel with CONFIG_CGROUP_BPF, with a \
             writable hierarchy of cgroups",
        ),
    }
}

fn space(about: &'static str, path: &Path) -> CheckResult {
    let existing = path
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => free(about, path, stat.f_bavail * stat.f_frsize),
        Err(errno) => CheckResult::warning(
            about,
            format!("{}: {errno}", existing.display()),
            "see why it cannot be looked at",
        ),
    }
}

fn free(about: &'static str, path: &Path, bytes: u64) -> CheckResult {
    let found = format!("{}: {} free", path.display(), size(bytes));
    if bytes >= LITTLE {
        return CheckResult::good(about, found);
    }
    CheckResult::warning(
        about,
        found,
        "see what overlays hold by `reaper-runtime overlay du`, and remove what is not needed by \
         `reaper-runtime prune`",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Level, *};

    #[test]
    fn kernel_before_5_10_is_a_warning() {
        let level = |release| kernel(release).level;
        assert_eq!(level("5.9.16"), Level::Warning);
        assert_eq!(level("4.18.0-553.el8"), Level::Warning);
        assert_eq!(level("5.10.0-30-amd64"), Level::Good);
        assert_eq!(kernel("6.18.44").found, "6.18.44");
        assert_eq!(level("odd"), Level::Warning);
    }

    #[test]
    fn capabilities_that_cannot_be_granted_are_named() {
        assert_eq!(grantable(&[]).level, Level::Good);
        let without = grantable(&["CAP_BPF".to_owned(), "CAP_MKNOD".to_owned()]);
        assert_eq!(without.level, Level::Warning);
        assert!(without.found.ends_with("CAP_BPF, CAP_MKNOD"));
    }

    #[test]
    fn missing_overlayfs_is_problem_and_disabled_overlay_is_warning() {
        assert_eq!(overlay(true, "nodev\toverlay\n").level, Level::Good);
        let without = overlay(true, "nodev\ttmpfs\n\text4\n");
        assert_eq!(without.level, Level::Problem);
        assert!(without.fix.unwrap().contains("modprobe overlay"));
        assert_eq!(overlay(false, "").level, Level::Warning);
    }

    #[test]
    fn read_only_or_missing_cgroup_mount_is_a_warning() {
        let mount = |options| {
            let line = format!("30 29 0:26 / /sys/fs/cgroup {options} - cgroup2 cgroup2 rw\n");
            mountinfo::parse(line.as_bytes())
        };
        let (enforce, off) = (CgroupMode::Enforce, CgroupMode::Off);
        assert_eq!(cgroups(enforce, &mount("rw,nosuid")).level, Level::Good);
        assert_eq!(cgroups(enforce, &mount("ro,nosuid")).level, Level::Warning);
        assert_eq!(cgroups(enforce, &[]).level, Level::Warning);
        assert_eq!(cgroups(off, &[]).level, Level::Good);
    }

    #[test]
    fn devices_are_kept_by_what_there_is() {
        assert_eq!(control(Ok(DeviceControl::V1)).level, Level::Good);
        let refused = control(Err(io::Error::from_raw_os_error(1)));
        assert_eq!(refused.level, Level::Warning);
        assert!(refused.found.contains("not permitted"), "{}", refused.found);
        let admin = Config {
            devices: DeviceMode::Node,
            ..Config::default()
        };
        assert_eq!(devices(&admin).level, Level::Good);
    }

    #[test]
    fn little_free_space_is_a_warning() {
        assert_eq!(free("state", Path::new("/x"), LITTLE).level, Level::Good);
        assert_eq!(free("state", Path::new("/x"), 5).level, Level::Warning);
    }
}
