//! Which setting of a machine forbids an ordinary user's overlay.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::io::Errno;

use crate::{
    contract::{Error, RootlessError},
    linux::namespace::USER_NAMESPACE,
};

/// What the step is called in which the kernel may refuse overlays to ordinary users.
pub(crate) const FIRST_OVERLAY: &str = "mount, as an ordinary user, the overlay over";

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
