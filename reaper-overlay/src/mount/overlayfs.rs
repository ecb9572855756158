//! Mounting one overlay, by whatever interface the kernel has.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
};

use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, mount,
    },
};

use super::{flags, interface::Interface};
use crate::linux::{handle::fd_link, mount_point::move_to};

#[cfg(test)]
mod tests;

/// The layers of one overlay and how it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overlay {
    /// The lower layers, the uppermost first.
    pub(crate) lower: Vec<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// Whether the upper layer shall be usable after the lower ones were changed offline.
    pub(crate) persistent: bool,
    /// Whether an ordinary user mounts it in a user namespace.
    pub(crate) userxattr: bool,
    pub(crate) attributes: MountAttrFlags,
}

impl Overlay {
    /// Mounts it on `place`: layer by layer with `lowerdir+` (Linux 6.8), or with
    /// everything in one string.
    ///
    /// The string is tried whenever the kernel refuses the configuration as invalid, at whatever
    /// step. It says so early for a key that it does not know, but a kernel before 6.5 takes any
    /// key and refuses only to create the filesystem, and every kernel takes at most 255 bytes as
    /// the value of a key. What makes no valid overlay at all is refused again.
    pub(crate) fn mount(&self, interface: Interface, place: BorrowedFd<'_>) -> io::Result<()> {
        if interface == Interface::Classic || takes_any_key() {
            return self.mount_by_string(place);
        }
        match self.configure() {
            Ok(tree) => Ok(move_to(tree.as_fd(), place)?),
            Err(Errno::INVAL) => self.mount_by_string(place),
            Err(errno) => Err(errno.into()),
        }
    }

    fn configure(&self) -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        for lower in &self.lower {
            // The one key that takes its value as it is, without escapes.
            fsconfig_set_string(context, "lowerdir+", lower.as_path())?;
        }
        fsconfig_set_string(context, "source", "reaper")?;
        fsconfig_set_string(context, "upperdir", escape(self.upper.as_os_str()))?;
        fsconfig_set_string(context, "workdir", escape(self.work.as_os_str()))?;
        for (key, value) in self.features() {
            fsconfig_set_string(context, key, value)?;
        }
        if self.userxattr {
            fsconfig_set_flag(context, "userxattr")?;
        }
        fsconfig_create(context)?;
        fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes)
    }

    /// Whatever would tie the upper layer to the state of the lower one is off. `xino` keeps
    /// nothing in the layers, but relies on inode numbers that a changed lower layer reuses.
    fn features(&self) -> [(&'static str, &'static str); 4] {
        let xino = if self.persistent || self.userxattr {
            "off"
        } else {
            "auto"
        };
        [
            ("redirect_dir", "nofollow"),
            ("index", "off"),
            ("metacopy", "off"),
            ("xino", xino),
        ]
    }

    fn mount_by_string(&self, place: BorrowedFd<'_>) -> io::Result<()> {
        let data = std::ffi::CString::new(self.options().into_vec())?;
        mount(
            "reaper",
            fd_link(&place),
            "overlay",
            flags::for_mount(self.attributes),
            data.as_c_str(),
        )?;
        Ok(())
    }

    /// All options as mount(2) takes them.
    fn options(&self) -> OsString {
        let mut options = OsString::from("lowerdir=");
        for (at, lower) in self.lower.iter().enumerate() {
            if at > 0 {
                options.push(":");
            }
            options.push(escape(lower.as_os_str()));
        }
        options.push(",upperdir=");
        options.push(escape(self.upper.as_os_str()));
        options.push(",workdir=");
        options.push(escape(self.work.as_os_str()));
        for (key, value) in self.features() {
            options.push(format!(",{key}={value}"));
        }
        if self.userxattr {
            options.push(",userxattr");
        }
        options
    }
}

/// Whether this kernel's overlay collects the keys of `fsconfig` unread, to parse them when it is
/// created, as before Linux 6.5. Each attempt there would leave an error in the kernel's log.
fn takes_any_key() -> bool {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .is_ok_and(|context| fsconfig_set_flag(context.as_fd(), "no-option-of-overlay").is_ok())
}

/// Escapes what separates options and layers: a comma, a colon, and the backslash itself.
pub(crate) fn escape(name: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(name.len());
    for &byte in name.as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}
