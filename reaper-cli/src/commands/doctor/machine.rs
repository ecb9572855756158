//! The kernel, what is mounted, and who asks.

use std::{fs, path::Path};

use reaper_overlay::mountinfo::{self, MountInfo};
use reaper_spec::Config;
use rustix::{
    fs::inotify::CreateFlags,
    io::Errno,
    mount::{FsOpenFlags, OpenTreeFlags},
    process::PidfdFlags,
};

use super::Finding;
use crate::commands::output::size;

/// Less than that is soon full.
const LITTLE: u64 = 64 << 20;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let uname = rustix::system::uname();
    // Asking for it loads the kernel's module, as a container's start would.
    let _ = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
    let mut findings = vec![
        rights(nix::unistd::geteuid().is_root()),
        kernel(&uname.release().to_string_lossy()),
        overlay(
            config.overlay.enabled,
            &fs::read_to_string("/proc/filesystems").unwrap_or_default(),
        ),
        interfaces(nix::unistd::geteuid().is_root()),
        cgroups(config.cgroups, &mountinfo::read().unwrap_or_default()),
        space("state", &config.state_root),
    ];
    if config.overlay.enabled {
        findings.push(space("overlay base", &config.overlay.base));
    }
    findings
}

fn rights(root: bool) -> Finding {
    if root {
        return Finding::good("rights", "root");
    }
    Finding::warning(
        "rights",
        "not root: containers run in a user namespace",
        "volumes, cgroups and other users need root: use sudo",
    )
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        (0, _) => Finding::warning("kernel", release, "this is no version of Linux"),
        version if version < (5, 10) => Finding::problem("kernel", release, "5.10 is needed"),
        version if version < (6, 8) => Finding::good(
            "kernel",
            format!("{release}; 6.8 sets overlays up by the newer interface"),
        ),
        _ => Finding::good("kernel", release),
    }
}

/// What containers cannot do without, or not as well, tried out: a kernel may be built without it, or a sandbox
/// around this program may forbid it.
fn interfaces(root: bool) -> Finding {
    let pidfd = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, "/", clone);
    let inotify = rustix::fs::inotify::init(CreateFlags::CLOEXEC);
    let tried = [
        ("pidfd_open", pidfd.err()),
        // It needs rights that are spoken of elsewhere.
        ("open_tree", tree.err().filter(|_| root)),
        ("inotify_init", inotify.err()),
    ];
    judge(&tried)
}

fn judge(tried: &[(&str, Option<Errno>)]) -> Finding {
    let names: Vec<_> = tried.iter().map(|(name, _)| *name).collect();
    let failed: Vec<_> = tried
        .iter()
        .filter_map(|(name, errno)| Some((*name, (*errno)?)))
        .collect();
    let found = || {
        let each = failed
            .iter()
            .map(|(name, errno)| format!("{name}: {errno}"));
        each.collect::<Vec<_>>().join("; ")
    };
    match failed.as_slice() {
        [] => Finding::good("interfaces", format!("{} work", names.join(", "))),
        [("inotify_init", Errno::MFILE)] => Finding::warning(
            "interfaces",
            found(),
            "this user has no inotify instance left: `sysctl fs.inotify.max_user_instances=1024`",
        ),
        [("open_tree", _)] => Finding::warning(
            "interfaces",
            found(),
            "volumes come by mount(2) instead, none with Bidirectional propagation: allow open_tree, \
             move_mount, fsopen, fsconfig and fsmount in the seccomp filter around this program",
        ),
        _ => Finding::problem(
            "interfaces",
            found(),
            "use a kernel that has them, and allow them in the seccomp filter around this program",
        ),
    }
}

fn overlay(enabled: bool, filesystems: &str) -> Finding {
    if !enabled {
        return Finding::warning(
            "overlay",
            "turned off: containers write to this machine itself",
            "to turn it on, take `enabled = false` out of the configuration's [overlay], or \
             REAPER_OVERLAY_ENABLED out of the environment",
        );
    }
    let known = |name: &str| filesystems.lines().any(|line| line.ends_with(name));
    if known("\toverlay") {
        return Finding::good("overlay", "the kernel has it");
    }
    Finding::problem(
        "overlay",
        "the kernel has no overlayfs, or cannot load it",
        "see what `modprobe overlay` says; without it set `enabled = false` in the configuration's \
         [overlay]",
    )
}

fn cgroups(wanted: bool, mounts: &[MountInfo]) -> Finding {
    let hierarchy = mounts.iter().find(|mount| mount.fs_type == "cgroup2");
    match hierarchy {
        _ if !wanted => Finding::good("cgroups", "not used: the configuration says so"),
        None => Finding::warning(
            "cgroups",
            "no cgroup v2 is mounted",
            "without it pause, figures and the end of what containers left running are best \
             effort: boot with systemd.unified_cgroup_hierarchy=1, or mount one with \
             `mount -t cgroup2 none /sys/fs/cgroup/unified`",
        ),
        Some(mount) if mount.options.iter().any(|option| option == "ro") => Finding::warning(
            "cgroups",
            format!("{} is read-only", mount.mount_point.display()),
            format!("`mount -o remount,rw {}`", mount.mount_point.display()),
        ),
        Some(mount) => Finding::good("cgroups", format!("v2 on {}", mount.mount_point.display())),
    }
}

fn space(about: &'static str, path: &Path) -> Finding {
    let existing = path
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => free(about, path, stat.f_bavail * stat.f_frsize),
        Err(errno) => Finding::warning(
            about,
            format!("{}: {errno}", existing.display()),
            "see why it cannot be looked at",
        ),
    }
}

fn free(about: &'static str, path: &Path, bytes: u64) -> Finding {
    let found = format!("{}: {} free", path.display(), size(bytes));
    if bytes >= LITTLE {
        return Finding::good(about, found);
    }
    Finding::warning(
        about,
        found,
        "see what overlays hold by `reaper-runtime overlay du`, and remove what is not needed by \
         `reaper-runtime prune`",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn kernels_are_told_apart() {
        let level = |release| kernel(release).level;
        assert_eq!(level("5.9.16"), Level::Problem);
        assert_eq!(level("4.18.0-553.el8"), Level::Problem);
        assert_eq!(level("5.10.0-30-amd64"), Level::Good);
        assert!(kernel("6.1.0-18-amd64").found.contains("newer interface"));
        assert_eq!(kernel("6.18.44").found, "6.18.44");
        assert_eq!(level("odd"), Level::Warning);
    }

    #[test]
    fn interfaces_that_fail_are_named_with_the_reason() {
        assert_eq!(judge(&[("pidfd_open", None)]).level, Level::Good);
        let denied = judge(&[("pidfd_open", Some(Errno::PERM)), ("open_tree", None)]);
        assert_eq!(denied.level, Level::Problem);
        assert!(denied.found.starts_with("pidfd_open: "), "{denied:?}");
        let old = judge(&[("pidfd_open", None), ("open_tree", Some(Errno::NOSYS))]);
        assert_eq!(old.level, Level::Warning);
        assert!(old.fix.unwrap().contains("Bidirectional"));
        let full = judge(&[("inotify_init", Some(Errno::MFILE))]);
        assert_eq!(full.level, Level::Warning);
        assert!(full.fix.unwrap().contains("max_user_instances"));
    }

    #[test]
    fn an_overlay_that_cannot_be_is_a_problem_and_one_that_is_off_is_not() {
        assert_eq!(overlay(true, "nodev\toverlay\n").level, Level::Good);
        let without = overlay(true, "nodev\ttmpfs\n\text4\n");
        assert_eq!(without.level, Level::Problem);
        assert!(without.fix.unwrap().contains("modprobe overlay"));
        assert_eq!(overlay(false, "").level, Level::Warning);
    }

    #[test]
    fn cgroups_are_wanted_writable() {
        let mount = |options| {
            let line = format!("30 29 0:26 / /sys/fs/cgroup {options} - cgroup2 cgroup2 rw\n");
            mountinfo::parse(line.as_bytes())
        };
        assert_eq!(cgroups(true, &mount("rw,nosuid")).level, Level::Good);
        assert_eq!(cgroups(true, &mount("ro,nosuid")).level, Level::Warning);
        assert_eq!(cgroups(true, &[]).level, Level::Warning);
        assert_eq!(cgroups(false, &[]).level, Level::Good);
    }

    #[test]
    fn little_space_is_worth_a_warning() {
        assert_eq!(free("state", Path::new("/x"), LITTLE).level, Level::Good);
        assert_eq!(free("state", Path::new("/x"), 5).level, Level::Warning);
    }
}
