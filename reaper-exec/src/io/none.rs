//! The streams of a process that has none yet.

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
};

use nix::poll::PollFlags;
use reaper_spec::ConsoleSize;

use super::contract::{BoundStdio, ChildStdio};

/// No streams.
#[derive(Debug)]
pub(crate) struct NoStreams;

impl BoundStdio for NoStreams {
    fn take_child(&mut self) -> Option<ChildStdio> {
        None
    }

    fn interests<'a>(&'a self, _wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {}

    fn ready(&mut self, _fd: RawFd, _events: PollFlags) {}

    fn close_stdin(&mut self) {}

    fn resize(&mut self, _size: ConsoleSize) -> io::Result<()> {
        Ok(())
    }

    fn ended(&mut self) {}

    fn is_finished(&self) -> bool {
        true
    }
}
