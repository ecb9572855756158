//! Looking at what is at a path before opening it.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::{FileStat, Mode, SFlag, fstat},
};

use super::contract::{IoError, Stream};

/// Something at a path, pinned but not opened.
///
/// Opening the unknown can block (a FIFO) or have effects (a tape rewinds), and the path can be
/// replaced between two opens: everything is opened through this one handle.
#[derive(Debug)]
pub(super) struct Located {
    handle: OwnedFd,
    stat: FileStat,
    stream: Stream,
    path: PathBuf,
}

impl Located {
    pub(super) fn find(stream: Stream, path: &Path) -> Result<Self, IoError> {
        let failed = |source| IoError::at(stream, "open", path, source);
        let handle = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
        let stat = fstat(&handle).map_err(failed)?;
        Ok(Self {
            handle,
            stat,
            stream,
            path: path.to_owned(),
        })
    }

    pub(super) fn is_fifo(&self) -> bool {
        kind(&self.stat) == SFlag::S_IFIFO
    }

    /// Opens it; close-on-exec is added.
    pub(super) fn open(&self, flags: OFlag) -> Result<OwnedFd, IoError> {
        reopen(&self.handle, flags)
            .map_err(|source| IoError::at(self.stream, "open", &self.path, source))
    }

    /// The error that it is not of the kind that the target names.
    pub(super) fn unexpected(&self, wanted: &'static str) -> IoError {
        IoError::Kind {
            stream: self.stream.name(),
            path: self.path.clone(),
            found: describe(kind(&self.stat)),
            wanted,
        }
    }
}

/// Opens what a descriptor refers to once more, as a separate open file description.
pub(super) fn reopen(fd: &OwnedFd, flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(
        path.as_str(),
        flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY,
        Mode::empty(),
    )
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn describe(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFCHR => "a character device",
        SFlag::S_IFBLK => "a block device",
        SFlag::S_IFSOCK => "a socket",
        _ => "of an unknown kind",
    }
}
