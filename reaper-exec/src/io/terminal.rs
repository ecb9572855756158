//! A terminal whose master the monitor keeps, and the copying between it and the streams.
//!
//! These are the only bytes that pass through the monitor. Both directions have a bounded buffer;
//! while it is full the other side is not read, so a slow client slows the process down and not the
//! monitor. After the exit of the process its last output is read up to a limit: a survivor that
//! keeps writing must not hold back the exit.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    time::Instant,
};

use nix::poll::PollFlags;
use reaper_spec::ConsoleSize;

use super::{
    buffer::{Buffer, Transfer},
    contract::{BoundStdio, ChildStdio, IoError},
    file,
    loggers::Loggers,
    pty::{self, Pty},
    sink::Sink,
};

/// More than the kernel buffers for a terminal, so that what was written before the end is read
/// after it, while a survivor that keeps writing is not listened to for ever.
const FINAL_READ_LIMIT: usize = 64 * 1024;

/// What the clients of a terminal write.
#[derive(Debug)]
pub(super) struct Source {
    /// Nonblocking.
    pub(super) reader: OwnedFd,
    /// For a FIFO: keeps the end of file away while clients come and go.
    pub(super) keep_alive: Option<OwnedFd>,
}

/// The monitor's side of a terminal.
///
/// A peer that is slow fills its buffer, and then the other side is not read any more. The slave is
/// held open until the process has ended: a program that closes its terminal and opens `/dev/tty`
/// again does not hang it up.
///
/// Closing the input ends the copying once the clients have closed it and what they wrote was
/// passed on. The terminal stays: it has no end of file, and hanging it up would lose output.
#[derive(Debug)]
pub(super) struct Terminal {
    child: Option<OwnedFd>,
    slave: Option<OwnedFd>,
    master: Option<OwnedFd>,
    source: Option<Source>,
    input: Buffer,
    output: Buffer,
    sink: Sink,
    loggers: Loggers,
    /// Set once the process has ended: how much may still be read.
    final_read: Option<usize>,
}

impl Terminal {
    /// Pumps between a new terminal and its streams.
    pub(super) fn new(
        terminal: Pty,
        source: Option<Source>,
        sink: Sink,
        loggers: Loggers,
    ) -> io::Result<Self> {
        file::set_nonblocking(&terminal.master, true)?;
        let slave = terminal.slave.try_clone()?;
        Ok(Self {
            slave: Some(slave),
            child: Some(terminal.slave),
            master: Some(terminal.master),
            source,
            input: Buffer::new(),
            output: Buffer::new(),
            sink,
            loggers: loggers.bound(),
            final_read: None,
        })
    }

    /// Moves what can be moved, one step in each direction. Says whether anything was.
    fn pump(&mut self) -> bool {
        let moved_in = self.pump_input();
        let moved_out = self.pump_output();
        if self.final_read.is_some() && self.master.is_none() && self.output.is_empty() {
            self.sink.finish();
        }
        moved_in || moved_out
    }

    fn pump_input(&mut self) -> bool {
        let filled = match &self.source {
            Some(source) => self.input.fill(&source.reader),
            None => Transfer::Stalled,
        };
        // With the keep-alive this comes only after the input was closed.
        if filled == Transfer::Ended {
            self.source = None;
        }
        let drained = match &self.master {
            Some(master) => self.input.drain(master),
            None => Transfer::Stalled,
        };
        if drained == Transfer::Ended {
            self.input.clear();
        }
        matches!(filled, Transfer::Moved(_)) || matches!(drained, Transfer::Moved(_))
    }

    fn pump_output(&mut self) -> bool {
        let had_room = self.output.has_room();
        let filled = match &self.master {
            Some(master) => self.output.fill(master),
            None => Transfer::Stalled,
        };
        if let (Transfer::Moved(count), Some(left)) = (filled, &mut self.final_read) {
            *left = left.saturating_sub(count);
        }
        // Once the process has ended nothing to be read means that there will be nothing more.
        let over = self
            .final_read
            .is_some_and(|left| left == 0 || filled == Transfer::Stalled);
        if filled == Transfer::Ended || (over && had_room) {
            self.master = None;
        }
        let drained = self.sink.take_from(&mut self.output);
        matches!(filled, Transfer::Moved(_)) || matches!(drained, Transfer::Moved(_))
    }
}

impl BoundStdio for Terminal {
    fn take_child(&mut self) -> Option<ChildStdio> {
        self.child.take().map(ChildStdio::Terminal)
    }

    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        if let Some(master) = &self.master {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, self.output.has_room());
            flags.set(PollFlags::POLLOUT, !self.input.is_empty());
            if !flags.is_empty() {
                wanted.push((master.as_fd(), flags));
            }
        }
        if let Some(source) = &self.source
            && self.input.has_room()
        {
            wanted.push((source.reader.as_fd(), PollFlags::POLLIN));
        }
        wanted.extend(self.sink.interest(!self.output.is_empty()));
        self.loggers.interests(wanted);
    }

    fn is_ready(&self) -> Result<bool, IoError> {
        self.loggers.are_ready()
    }

    fn ready(&mut self, fd: RawFd, _events: PollFlags) {
        self.loggers.ready(fd);
        self.sink.ready();
        self.pump();
    }

    fn close_stdin(&mut self) {
        if let Some(source) = &mut self.source {
            source.keep_alive = None;
        }
    }

    fn resize(&mut self, size: ConsoleSize) -> io::Result<()> {
        self.master
            .as_ref()
            .map_or(Ok(()), |master| pty::resize(master, size))
    }

    fn ended(&mut self) {
        self.child = None;
        self.slave = None;
        self.source = None;
        self.input.clear();
        self.final_read.get_or_insert(FINAL_READ_LIMIT);
        while self.pump() {}
        self.loggers.finish();
    }

    fn is_finished(&self) -> bool {
        self.final_read.is_some()
            && self.master.is_none()
            && self.output.is_empty()
            && self.sink.is_closed()
            && self.loggers.are_ended()
    }

    fn helpers(&self) -> Vec<u32> {
        self.loggers.pids()
    }

    fn helper_ended(&mut self, pid: u32) {
        self.loggers.reaped(pid);
        if self.final_read.is_some() {
            self.pump();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.loggers.deadline()
    }

    fn timeout(&mut self) {
        self.loggers.timeout();
    }
}
