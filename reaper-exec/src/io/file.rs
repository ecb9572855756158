//! Files as streams, `/dev/null` among them.

use std::{os::fd::OwnedFd, path::Path};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    sys::stat::{Mode, SFlag, fstat},
};

use super::{
    contract::{IoError, Stream},
    locate::{Located, kind},
};

/// Opens `/dev/null`.
pub(super) fn null(stream: Stream) -> Result<OwnedFd, IoError> {
    let flags = if stream == Stream::Stdin {
        OFlag::O_RDONLY
    } else {
        OFlag::O_WRONLY
    };
    let path = Path::new("/dev/null");
    open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|source| IoError::at(stream, "open", path, source))
}

/// Opens a `file://`: to be appended to, made if it is missing (with its folders, as containerd
/// does), or for the input to be read.
pub(super) fn open_file(stream: Stream, path: &Path) -> Result<OwnedFd, IoError> {
    if stream != Stream::Stdin
        && let Some(folder) = path.parent()
    {
        std::fs::create_dir_all(folder).map_err(|source| IoError::System {
            operation: format!("{stream}: make the folder {}", folder.display()),
            source,
        })?;
    }
    // Nonblocking until it is known to be neither a FIFO nor a serial line without a carrier.
    let flags = access(stream) | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
    let fd = match open(path, flags, mode) {
        // A FIFO without a reader, or a socket: say what it is.
        Err(Errno::ENXIO) => return Err(Located::find(stream, path)?.unexpected(WANTED)),
        opened => opened.map_err(|source| IoError::at(stream, "open", path, source))?,
    };
    finish(stream, path, fd)
}

/// Opens a file that exists, for a bare path.
pub(super) fn open_existing(
    stream: Stream,
    file: &Located,
    path: &Path,
) -> Result<OwnedFd, IoError> {
    let flags = access(stream).difference(OFlag::O_CREAT);
    finish(stream, path, file.open(flags | OFlag::O_NONBLOCK)?)
}

const WANTED: &str = "a file or a terminal";

fn access(stream: Stream) -> OFlag {
    match stream {
        Stream::Stdin => OFlag::O_RDONLY,
        Stream::Stdout | Stream::Stderr => OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT,
    }
}

fn finish(stream: Stream, path: &Path, fd: OwnedFd) -> Result<OwnedFd, IoError> {
    let failed = |source| IoError::at(stream, "open", path, source);
    let stat = fstat(&fd).map_err(failed)?;
    if !matches!(kind(&stat), SFlag::S_IFREG | SFlag::S_IFCHR) {
        return Err(Located::find(stream, path)?.unexpected(WANTED));
    }
    set_nonblocking(&fd, false).map_err(failed)?;
    Ok(fd)
}

/// Changes whether an open file description blocks. It may be shared with other processes.
pub(super) fn set_nonblocking(fd: &OwnedFd, wanted: bool) -> Result<(), Errno> {
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, wanted);
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(drop)
}
