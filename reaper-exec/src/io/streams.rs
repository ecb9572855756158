//! Three streams that the process itself reads and writes.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    time::Instant,
};

use nix::poll::PollFlags;
use reaper_spec::ConsoleSize;

use super::{
    contract::{BoundStdio, ChildStdio, IoError},
    fifo::OutputFifo,
    loggers::Loggers,
};

/// The monitor's side of streams without a terminal: it holds, and copies nothing.
#[derive(Debug)]
pub(super) struct DirectStreams {
    pub(super) child: Option<[OwnedFd; 3]>,
    pub(super) stdin_keep_alive: Option<OwnedFd>,
    pub(super) fifos: Vec<OutputFifo>,
    pub(super) loggers: Loggers,
}

impl BoundStdio for DirectStreams {
    fn take_child(&mut self) -> Option<ChildStdio> {
        self.child.take().map(ChildStdio::Streams)
    }

    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let fifos = self.fifos.iter().filter_map(OutputFifo::interest);
        wanted.extend(fifos.map(|fd| (fd, PollFlags::POLLIN)));
        self.loggers.interests(wanted);
    }

    fn is_ready(&self) -> Result<bool, IoError> {
        self.loggers.are_ready()
    }

    fn ready(&mut self, fd: RawFd, _events: PollFlags) {
        self.loggers.ready(fd);
        for fifo in &mut self.fifos {
            fifo.ready();
        }
    }

    fn close_stdin(&mut self) {
        self.stdin_keep_alive = None;
    }

    fn resize(&mut self, _size: ConsoleSize) -> io::Result<()> {
        Ok(())
    }

    fn ended(&mut self) {
        self.child = None;
        self.stdin_keep_alive = None;
        for fifo in &mut self.fifos {
            fifo.release();
        }
        self.loggers.finish();
    }

    fn is_finished(&self) -> bool {
        self.child.is_none()
            && self.fifos.iter().all(OutputFifo::is_closed)
            && self.loggers.are_ended()
    }

    fn helpers(&self) -> Vec<u32> {
        self.loggers.pids()
    }

    fn helper_ended(&mut self, pid: u32) {
        self.loggers.reaped(pid);
    }

    fn deadline(&self) -> Option<Instant> {
        self.loggers.deadline()
    }

    fn timeout(&mut self) {
        self.loggers.timeout();
    }
}
