//! Why a machine forbids an ordinary user's overlay.

use std::fmt;

/// Why an ordinary user cannot have an overlay on this machine. Its text says how to change that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootlessError {
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

impl fmt::Display for RootlessError {
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
