//! Giving streams to the user that a process runs as.

use std::os::fd::BorrowedFd;

use nix::{
    errno::Errno,
    sys::stat::{SFlag, fstat},
    unistd::{Uid, fchown},
};

use super::{
    contract::{IoError, Stream},
    locate::kind,
};

/// Makes a stream the process's own, so that it can open it anew as `/dev/stderr`.
///
/// As in runc, only the user changes, since a mount may want a certain group (`tty`), and it is not
/// an error if the filesystem or the owner of the stream does not let us. Unlike runc, it keeps its
/// hands off what a process only reads, unless it is a FIFO, since `< /etc/shadow` must not give
/// that file away, and off devices, since a terminal is its user's, who types there, before and
/// after. A terminal that was made for the process is given to it by [`chown_terminal`].
pub(super) fn chown_stream(
    stream: Stream,
    fd: BorrowedFd<'_>,
    owner: Option<(u32, u32)>,
) -> Result<(), IoError> {
    let Some((uid, _)) = owner else { return Ok(()) };
    let failed = |source: Errno| IoError::System {
        operation: format!("{stream}: give it to user {uid}"),
        source: source.into(),
    };
    let stat = fstat(fd).map_err(failed)?;
    let wanted = match kind(&stat) {
        SFlag::S_IFIFO => true,
        SFlag::S_IFREG => stream != Stream::Stdin,
        _ => false,
    };
    if !wanted || stat.st_uid == uid {
        return Ok(());
    }
    chown(fd, uid).map_err(failed)
}

/// Gives a terminal that was made for a process to the process's user.
pub(super) fn chown_terminal(
    terminal: BorrowedFd<'_>,
    owner: Option<(u32, u32)>,
) -> Result<(), IoError> {
    let Some((uid, _)) = owner else { return Ok(()) };
    chown(terminal, uid).map_err(|source| IoError::System {
        operation: format!("give the terminal to user {uid}"),
        source: source.into(),
    })
}

fn chown(fd: BorrowedFd<'_>, uid: u32) -> nix::Result<()> {
    match fchown(fd, Some(Uid::from_raw(uid)), None) {
        Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => Ok(()),
        changed => changed,
    }
}
