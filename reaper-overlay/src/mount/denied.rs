//! Which setting of a machine forbids an ordinary user's overlay, and why root's is refused.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    fs::{CWD, statfs},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use crate::{
    contract::{Error, RootlessError},
    linux::namespace::USER_NAMESPACE,
};

/// What the step is called in which the kernel may refuse overlays to ordinary users.
pub(crate) const FIRST_OVERLAY: &str = "mount, as an ordinary user, the overlay over";

/// The same as root.
pub(crate) const ROOT_OVERLAY: &str = "mount the overlay over";

/// Why root's overlay is refused within another one.
const LOCKED: &str = "this is run in a container over an overlay, whose mounts are locked, and the kernel takes \
                      no directory as a lower layer that has locked mounts below it: run it outside of the \
                      container, on the host";

/// Why it is refused on a base.
const NO_UPPER: &str = "the filesystem of the overlay base can hold no upper layer (another overlay, NFS and FAT \
                        cannot): set overlay.base (REAPER_OVERLAY_BASE) to a directory on a local disk, or \
                        overlay.size, by which a tmpfs is mounted there";

/// Says why root's overlay was refused, where that can be told.
pub(crate) fn explain_to_root(error: Error, base: &Path) -> Error {
    let (step, path) = match &error {
        Error::Helper {
            operation, path, ..
        } => (operation.as_str(), path),
        Error::System {
            operation, path, ..
        } => (*operation, path),
        _ => return error,
    };
    if ![ROOT_OVERLAY, crate::mount::mask::MAKE_WHITEOUT].contains(&step) {
        return error;
    }
    let reason = if root_is_locked() {
        LOCKED
    } else if is_on_overlay(base) {
        NO_UPPER
    } else {
        return error;
    };
    let operation = format!("{step} {}", path.display());
    match error {
        Error::Helper { source, .. } | Error::System { source, .. } => Error::Refused {
            operation,
            source,
            reason,
        },
        error => error,
    }
}

/// Whether the kernel refuses a copy of the root without what is mounted below it, as of locked mounts
/// (mount_namespaces(7)).
fn root_is_locked() -> bool {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, "/", flags).is_err_and(|errno| errno == Errno::INVAL)
}

fn is_on_overlay(dir: &Path) -> bool {
    const OVERLAY_MAGIC: u64 = 0x794c_7630;
    statfs(dir).is_ok_and(|found| found.f_type as u64 == OVERLAY_MAGIC)
}

/// Says which setting of the machine is the reason, where one is known.
pub(crate) fn explain(error: Error) -> Error {
    let (operation, path, source) = match error {
        Error::Helper {
            operation,
            path,
            source,
        } => (operation, path, source),
        Error::System {
            operation: crate::mount::mask::MAKE_WHITEOUT,
            path,
            source,
        } => {
            return Error::RootlessRefused {
                operation: format!("{} {}", crate::mount::mask::MAKE_WHITEOUT, path.display()),
                source,
                reason: RootlessError::Base,
            };
        }
        error => return error,
    };
    let errno = Errno::from_io_error(&source).unwrap_or(Errno::IO);
    let uname = rustix::system::uname();
    let overlay = operation == FIRST_OVERLAY;
    let release = uname.release().to_string_lossy();
    let reason = find(Path::new("/proc"), &release, overlay, errno);
    // Steps that follow have reasons of their own.
    if reason == RootlessError::Unknown && !overlay && !path.ends_with(USER_NAMESPACE) {
        return Error::Helper {
            operation,
            path,
            source,
        };
    }
    Error::RootlessRefused {
        operation: format!("{operation} {}", path.display()),
        source,
        reason,
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
pub(crate) fn find(proc: &Path, release: &str, overlay: bool, errno: Errno) -> RootlessError {
    let read = |path: &str| fs::read_to_string(proc.join(path)).unwrap_or_default();
    if matches!(errno, Errno::PERM | Errno::ACCESS | Errno::NOSPC) {
        let forbids = |path: &str, value: &str| read(path).trim() == value;
        let found = SETTINGS
            .iter()
            .find(|(_, path, value, _)| forbids(path, value));
        if let Some(&(name, _, value, allowed)) = found {
            return RootlessError::Setting {
                name,
                value: value.to_owned(),
                allowed,
            };
        }
    }
    match errno {
        Errno::NOSPC | Errno::USERS if !overlay => RootlessError::Limit,
        Errno::NODEV => RootlessError::NoOverlay,
        Errno::PERM if overlay && version(release) < FIRST_WITH_OVERLAYS => {
            RootlessError::OldKernel
        }
        Errno::INVAL | Errno::OPNOTSUPP if overlay => RootlessError::Base,
        Errno::INVAL | Errno::NOSYS if !proc.join("self/ns/user").exists() => {
            RootlessError::NoUserNamespaces
        }
        Errno::ACCESS if !overlay && is_foreign(&proc.join("self/uid_map")) => {
            RootlessError::Undumpable
        }
        _ if filtered(&read("self/status")) => RootlessError::Seccomp,
        Errno::PERM if !overlay && in_chroot(&read("self/mountinfo")) => RootlessError::Chroot,
        _ => RootlessError::Unknown,
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
    fn refusals_without_a_setting_are_distinguished() {
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
        assert_eq!(
            found(unconfined, NEW, false, Errno::NOSPC),
            RootlessError::Limit
        );
        assert_eq!(
            found(confined, NEW, false, Errno::PERM),
            RootlessError::Seccomp
        );
        assert_eq!(found(jail, NEW, false, Errno::PERM), RootlessError::Chroot);
        assert_eq!(found(root, NEW, false, Errno::PERM), RootlessError::Unknown);
        assert_eq!(
            found(root, NEW, true, Errno::NODEV),
            RootlessError::NoOverlay
        );
        assert_eq!(found(root, NEW, true, Errno::INVAL), RootlessError::Base);
        assert_eq!(
            found(root, "5.10.0-28-amd64", true, Errno::PERM),
            RootlessError::OldKernel
        );
        assert_eq!(
            found(root, "5.11.0", true, Errno::PERM),
            RootlessError::Unknown
        );
        let bare = proc(&[ALLOWED]);
        assert_eq!(
            find(bare.path(), NEW, false, Errno::INVAL),
            RootlessError::NoUserNamespaces
        );
    }
}
