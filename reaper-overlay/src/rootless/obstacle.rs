//! Which setting of a machine forbids an ordinary user's overlay.

use std::{fmt, fs, os::unix::fs::MetadataExt, path::Path};

use rustix::io::Errno;

/// Why an ordinary user cannot have an overlay on this machine. Its text says how to change that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// A setting of the kernel (sysctl(8)) has a value that forbids it.
    Setting {
        /// Its name, for example `user.max_user_namespaces`.
        name: &'static str,
        /// Its value.
        value: String,
        /// A value that allows it.
        allowed: &'static str,
    },
    /// The limit `user.max_user_namespaces` or `user.max_mnt_namespaces` is used up.
    Limit,
    /// A seccomp filter, such as that of a container that this program runs in.
    Seccomp,
    /// The program's root directory is not the root of its mount namespace (chroot(2)).
    Chroot,
    /// The process is not dumpable (prctl(2)), so that its files in `/proc` are not its own.
    Undumpable,
    /// The kernel was built without user namespaces.
    NoUserNamespaces,
    /// The kernel is older than Linux 5.11, which lets ordinary users mount overlays.
    OldKernel,
    /// The kernel has no overlayfs, or its module is not loaded.
    NoOverlay,
    /// The overlay was refused, most often because the base lies on a filesystem that cannot hold
    /// an upper layer.
    Base,
    /// None of the known reasons, or a security module that does not say so.
    Unknown,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting {
                name,
                value,
                allowed,
            } => write!(
                f,
                "{name} is {value} here; root can allow it by `sysctl -w {name}={allowed}`"
            ),
            Self::Limit => f.write_str(
                "as many namespaces as the limit allows exist already; root can raise it by \
                 `sysctl -w user.max_user_namespaces=15000 user.max_mnt_namespaces=15000`",
            ),
            Self::Seccomp => f.write_str(
                "a seccomp filter is in force, most likely that of the container that this runs \
                 in; start that one without it (docker and podman: `--security-opt \
                 seccomp=unconfined`)",
            ),
            Self::Chroot => f.write_str(
                "the kernel allows no user namespace in a chroot; enter that root by pivot_root(2) \
                 instead, as `unshare --mount` with `pivot_root` or a container engine does",
            ),
            Self::Undumpable => f.write_str(
                "this process is not dumpable: a program that has changed its user calls \
                 prctl(PR_SET_DUMPABLE, 1) first, and the file of a program that was executed must \
                 be readable for its user",
            ),
            Self::NoUserNamespaces => {
                f.write_str("this kernel was built without user namespaces (CONFIG_USER_NS)")
            }
            Self::OldKernel => f.write_str(
                "ordinary users may mount overlays since Linux 5.11 only; boot a newer kernel",
            ),
            Self::NoOverlay => f.write_str(
                "the kernel has no overlayfs, or has not loaded it; root can do so by `modprobe \
                 overlay`",
            ),
            Self::Base => f.write_str(
                "the filesystem of the overlay base can hold no upper layer (another overlay, NFS \
                 and FAT cannot); name a directory on a tmpfs or a local disk by XDG_RUNTIME_DIR or \
                 REAPER_OVERLAY_BASE",
            ),
            Self::Unknown => f.write_str(
                "none of the usual settings forbids it here, so a security module (SELinux, \
                 AppArmor) may; see what the kernel's log says",
            ),
        }
    }
}

/// Settings that forbid user namespaces, with the value that does and one that does not.
const SETTINGS: [(&str, &str, &str, &str); 4] = [
    (
        "user.max_user_namespaces",
        "sys/user/max_user_namespaces",
        "0",
        "15000",
    ),
    (
        "user.max_mnt_namespaces",
        "sys/user/max_mnt_namespaces",
        "0",
        "15000",
    ),
    (
        "kernel.unprivileged_userns_clone",
        "sys/kernel/unprivileged_userns_clone",
        "0",
        "1",
    ),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "0",
    ),
];

/// Linux 5.11.
const FIRST_WITH_OVERLAYS: (u32, u32) = (5, 11);

/// Finds why a step failed with `errno`. `proc` is where procfs is mounted, `release` the kernel's;
/// `overlay` says that the overlay itself was refused, in a namespace that could be made.
pub(crate) fn find(proc: &Path, release: &str, overlay: bool, errno: Errno) -> Obstacle {
    let read = |path: &str| fs::read_to_string(proc.join(path)).unwrap_or_default();
    if matches!(errno, Errno::PERM | Errno::ACCESS | Errno::NOSPC) {
        let forbids = |path: &str, value: &str| read(path).trim() == value;
        let found = SETTINGS
            .iter()
            .find(|(_, path, value, _)| forbids(path, value));
        if let Some(&(name, _, value, allowed)) = found {
            return Obstacle::Setting {
                name,
                value: value.to_owned(),
                allowed,
            };
        }
    }
    match errno {
        Errno::NOSPC | Errno::USERS if !overlay => Obstacle::Limit,
        Errno::NODEV => Obstacle::NoOverlay,
        Errno::PERM if overlay && version(release) < FIRST_WITH_OVERLAYS => Obstacle::OldKernel,
        Errno::INVAL | Errno::OPNOTSUPP if overlay => Obstacle::Base,
        Errno::INVAL | Errno::NOSYS if !proc.join("self/ns/user").exists() => {
            Obstacle::NoUserNamespaces
        }
        Errno::ACCESS if !overlay && is_foreign(&proc.join("self/uid_map")) => Obstacle::Undumpable,
        _ if filtered(&read("self/status")) => Obstacle::Seccomp,
        Errno::PERM if !overlay && in_chroot(&read("self/mountinfo")) => Obstacle::Chroot,
        _ => Obstacle::Unknown,
    }
}

fn is_foreign(file: &Path) -> bool {
    let owner = fs::metadata(file).map(|metadata| metadata.uid());
    owner.is_ok_and(|uid| uid != rustix::process::geteuid().as_raw())
}

/// Whether `status` (proc(5)) is that of a process with a seccomp filter.
fn filtered(status: &str) -> bool {
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.any(|(name, value)| name == "Seccomp" && value.trim() == "2")
}

/// Whether a process with this mountinfo does not see the root of its mount namespace.
fn in_chroot(mountinfo: &str) -> bool {
    let mut points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    !mountinfo.is_empty() && !points.any(|point| point == "/")
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory like `/proc` with these files.
    fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn said(files: &[(&str, &str)], release: &str, overlay: bool, errno: Errno) -> String {
        find(proc(files).path(), release, overlay, errno).to_string()
    }

    const ALLOWED: (&str, &str) = ("sys/user/max_user_namespaces", "96365\n");
    const NEW: &str = "6.8.0-45-generic";

    #[test]
    fn a_setting_that_forbids_is_named_with_the_command_that_allows() {
        for (path, value, command) in [
            (
                "sys/user/max_user_namespaces",
                "0\n",
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (
                "sys/kernel/unprivileged_userns_clone",
                "0\n",
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                "sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
        ] {
            for errno in [Errno::PERM, Errno::NOSPC, Errno::ACCESS] {
                let text = said(&[(path, value)], NEW, false, errno);
                assert!(text.contains(command), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_setting_is_told_apart() {
        let unconfined = ("self/status", "Name:\tx\nSeccomp:\t0\n");
        let confined = (
            "self/status",
            "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        );
        let root = ("self/mountinfo", "27 1 254:0 / / rw - ext4 /dev/vda rw\n");
        let jail = ("self/mountinfo", "29 27 0:9 / /proc rw - proc proc rw\n");
        let found = |file, release, overlay, errno| {
            let files = [ALLOWED, ("self/ns/user", ""), file];
            find(proc(&files).path(), release, overlay, errno)
        };
        assert_eq!(found(unconfined, NEW, false, Errno::NOSPC), Obstacle::Limit);
        assert_eq!(found(confined, NEW, false, Errno::PERM), Obstacle::Seccomp);
        assert_eq!(found(jail, NEW, false, Errno::PERM), Obstacle::Chroot);
        assert_eq!(found(root, NEW, false, Errno::PERM), Obstacle::Unknown);
        assert_eq!(found(root, NEW, true, Errno::NODEV), Obstacle::NoOverlay);
        assert_eq!(found(root, NEW, true, Errno::INVAL), Obstacle::Base);
        assert_eq!(
            found(root, "5.10.0-28-amd64", true, Errno::PERM),
            Obstacle::OldKernel
        );
        assert_eq!(found(root, "5.11.0", true, Errno::PERM), Obstacle::Unknown);
        let bare = proc(&[ALLOWED]);
        assert_eq!(
            find(bare.path(), NEW, false, Errno::INVAL),
            Obstacle::NoUserNamespaces
        );
    }
}
