//! The descriptors of this process, by their numbers.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd},
};

use rustix::fs::{Dir, Mode, OFlags};

use crate::sys;

/// The descriptors that are open.
pub(crate) fn open_files() -> io::Result<Vec<RawFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = Dir::new(rustix::fs::open("/proc/self/fd", flags, Mode::empty())?)?;
    let own = folder.fd()?.as_raw_fd();
    let mut open = Vec::new();
    for entry in folder {
        let entry = entry?;
        let number: Option<RawFd> = entry
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok());
        open.extend(number.filter(|&file| file != own));
    }
    Ok(open)
}

/// Closes every descriptor from `first` to `last`, one by one where the kernel has no call for it.
///
/// The caller must not use an owner of one of them afterwards, as with [`sys::close_range`].
pub(crate) fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if last < first {
        return Ok(());
    }
    match sys::close_range(first, last) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            for file in open_files()? {
                if (first..=last).contains(&file) {
                    let _ = nix::unistd::close(file);
                }
            }
            Ok(())
        }
        closed => closed,
    }
}

/// A close-on-exec copy of `file` whose number is at least `minimum`.
pub(crate) fn duplicate_above(file: impl AsFd, minimum: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, minimum)?)
}
