//! Outputs that the monitor reads and passes on: captured ones, and those of the journal.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    time::Instant,
};

use nix::{errno::Errno, fcntl::OFlag, poll::PollFlags, unistd::pipe2};
use reaper_spec::ConsoleSize;

use super::{
    contract::{BoundStdio, ChildStdio, IoError, Stream},
    file, owner,
};

/// More turns than it takes to empty the pipes of a process, so that what was written before its
/// end is passed on with it, while a survivor that keeps writing does not hold up the news.
const FINAL_READS: usize = 64;

/// Passes on what comes through the pipes.
pub(super) trait Pump {
    /// What to wait for.
    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>);

    /// A descriptor, which may be one of the pump's, has reported something. [`pump`](Self::pump)
    /// follows.
    fn ready(&mut self, fd: RawFd, events: PollFlags);

    /// Passes on a bounded amount, without blocking. Says whether anything was moved.
    fn pump(&mut self) -> bool;

    /// Whether all pipes have come to their end, and all that came through was passed on.
    fn is_done(&self) -> bool;
}

/// A pipe for an output: an end to be read without blocking, and the process's own.
pub(super) fn pipe(
    stream: Stream,
    owner: Option<(u32, u32)>,
) -> Result<(OwnedFd, OwnedFd), IoError> {
    let failed = |errno: Errno| IoError::System {
        operation: format!("{stream}: make a pipe"),
        source: errno.into(),
    };
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    file::set_nonblocking(&reader, true).map_err(failed)?;
    owner::chown_stream(stream, writer.as_fd(), owner)?;
    Ok((reader, writer))
}

/// The process's end of a pipe, for another of its outputs.
pub(super) fn share(stream: Stream, writer: &OwnedFd) -> Result<OwnedFd, IoError> {
    writer.try_clone().map_err(|source| IoError::System {
        operation: format!("{stream}: share a pipe"),
        source,
    })
}

/// Streams of which some are tapped, and the rest is served by another binder's.
pub(super) struct Tapped<P> {
    others: Box<dyn BoundStdio>,
    child: Option<ChildStdio>,
    pump: P,
    ended: bool,
}

impl<P: Pump> Tapped<P> {
    /// Gives the child `ends` in place of what `others` has opened for these streams.
    pub(super) fn new(
        mut others: Box<dyn BoundStdio>,
        ends: Vec<(Stream, OwnedFd)>,
        pump: P,
    ) -> Self {
        let child = others.take_child().map(|child| replace(child, ends));
        Self {
            others,
            child,
            pump,
            ended: false,
        }
    }
}

fn replace(child: ChildStdio, ends: Vec<(Stream, OwnedFd)>) -> ChildStdio {
    match child {
        ChildStdio::Streams(mut streams) => {
            for (stream, end) in ends {
                streams[stream as usize] = end;
            }
            ChildStdio::Streams(streams)
        }
        terminal @ ChildStdio::Terminal(_) => terminal,
    }
}

impl<P: Pump> BoundStdio for Tapped<P> {
    fn take_child(&mut self) -> Option<ChildStdio> {
        self.child.take()
    }

    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        self.pump.interests(wanted);
        self.others.interests(wanted);
    }

    fn ready(&mut self, fd: RawFd, events: PollFlags) {
        self.pump.ready(fd, events);
        self.pump.pump();
        self.others.ready(fd, events);
    }

    fn close_stdin(&mut self) {
        self.others.close_stdin();
    }

    fn is_ready(&self) -> Result<bool, IoError> {
        self.others.is_ready()
    }

    fn resize(&mut self, size: ConsoleSize) -> io::Result<()> {
        self.others.resize(size)
    }

    fn ended(&mut self) {
        self.child = None;
        self.ended = true;
        for _ in 0..FINAL_READS {
            if !self.pump.pump() {
                break;
            }
        }
        self.others.ended();
    }

    fn is_finished(&self) -> bool {
        self.ended && self.pump.is_done() && self.others.is_finished()
    }

    fn helpers(&self) -> Vec<u32> {
        self.others.helpers()
    }

    fn helper_ended(&mut self, pid: u32) {
        self.others.helper_ended(pid);
    }

    fn deadline(&self) -> Option<Instant> {
        self.others.deadline()
    }

    fn timeout(&mut self) {
        self.others.timeout();
    }
}
