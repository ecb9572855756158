//! Which descriptors a process starts with: its streams, those preserved for it, nothing else.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use crate::{
    descriptors::{close_range, duplicate_above},
    io::ChildStdio,
    sys,
};

const FIRST_PRESERVED: RawFd = 3;

/// A close-on-exec copy of `fd` whose number is above all that a process with `preserved`
/// preserved descriptors starts with.
pub(super) fn move_above_stdio(fd: OwnedFd, preserved: usize) -> io::Result<OwnedFd> {
    let above = FIRST_PRESERVED + RawFd::try_from(preserved).unwrap_or(RawFd::MAX - 3);
    if fd.as_raw_fd() >= above {
        return Ok(fd);
    }
    duplicate_above(fd, above)
}

/// Puts the streams onto 0, 1 and 2, the preserved descriptors from 3 on, and closes all others
/// but `start_socket`, which must have been moved above them.
///
/// After the fork the child has copies of all descriptors of the monitor. They are closed, since
/// the copy of a pipe's write end would keep its reader waiting.
pub(super) fn install(
    stdio: ChildStdio,
    preserved: Vec<OwnedFd>,
    start_socket: &OwnedFd,
) -> io::Result<()> {
    let count = preserved.len();
    let streams = match stdio {
        ChildStdio::Streams(streams) => streams.into_iter().collect(),
        ChildStdio::Terminal(terminal) => {
            vec![terminal.try_clone()?, terminal.try_clone()?, terminal]
        }
    };
    let sources: Vec<OwnedFd> = streams
        .into_iter()
        .chain(preserved)
        .map(|fd| move_above_stdio(fd, count))
        .collect::<io::Result<_>>()?;
    for (source, number) in sources.iter().zip(0..) {
        sys::duplicate_onto(source.as_raw_fd(), number)?;
    }
    let above = FIRST_PRESERVED + RawFd::try_from(count).unwrap_or(0);
    std::mem::forget(sources);
    close_range(above, start_socket.as_raw_fd() - 1)?;
    close_range(start_socket.as_raw_fd() + 1, RawFd::MAX)
}
