//! The monitor's side: who reads the pipes and passes on what they hold.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::PollFlags,
    sys::socket::{MsgFlags, send},
    unistd::read,
};
use reaper_spec::ConsoleSize;

use super::{CHUNK, OutputStream};
use crate::io::{BoundStdio, ChildStdio, IoError};

/// More messages than both pipes hold, so that what was written before the end is passed on with
/// it, while a survivor that keeps writing does not hold up the news.
const LAST_WORDS: usize = 64;

/// A pipe that the process writes to.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) output: OutputStream,
    /// Nonblocking.
    pub(super) reader: OwnedFd,
}

/// Passes on what comes through the pipes.
pub(super) struct Pump {
    /// The streams that are not captured.
    others: Box<dyn BoundStdio>,
    child: Option<ChildStdio>,
    /// Without those that have come to their end.
    sources: Vec<Source>,
    /// `None` once nobody listens: what comes is thrown away.
    socket: Option<OwnedFd>,
    /// A message for which there was no room.
    pending: Option<Vec<u8>>,
    ended: bool,
}

impl Pump {
    pub(super) fn new(
        others: Box<dyn BoundStdio>,
        child: Option<ChildStdio>,
        sources: Vec<Source>,
        socket: OwnedFd,
    ) -> Self {
        Self {
            others,
            child,
            sources,
            socket: Some(socket),
            pending: None,
            ended: false,
        }
    }

    /// Passes on one message of each pipe. Says whether anything was moved.
    fn pump(&mut self) -> bool {
        let mut moved = self.pending.is_some() && self.flush();
        let mut index = 0;
        while self.pending.is_none() && index < self.sources.len() {
            match receive(&self.sources[index]) {
                Received::Message(message) => {
                    self.pending = Some(message);
                    self.flush();
                    moved = true;
                    index += 1;
                }
                Received::Nothing => index += 1,
                Received::End => drop(self.sources.remove(index)),
            }
        }
        if self.sources.is_empty() && self.pending.is_none() {
            // The end of the messages.
            self.socket = None;
        }
        moved
    }

    /// Sends the message that waits. Says whether it is gone.
    fn flush(&mut self) -> bool {
        let Some(message) = &self.pending else {
            return false;
        };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let sent = match &self.socket {
            Some(socket) => retry(|| send(socket.as_raw_fd(), message, flags)),
            None => Ok(message.len()),
        };
        match sent {
            Err(Errno::EAGAIN | Errno::ENOBUFS) => return false,
            Ok(_) => {}
            // Nobody is there any more.
            Err(_) => self.socket = None,
        }
        self.pending = None;
        true
    }
}

enum Received {
    Message(Vec<u8>),
    Nothing,
    End,
}

/// Reads once: a message with its output's number in front.
fn receive(source: &Source) -> Received {
    let mut message = vec![0; CHUNK + 1];
    message[0] = match source.output {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    };
    match retry(|| read(&source.reader, &mut message[1..])) {
        Ok(0) => Received::End,
        Ok(length) => {
            message.truncate(length + 1);
            Received::Message(message)
        }
        Err(Errno::EAGAIN) => Received::Nothing,
        Err(_) => Received::End,
    }
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

impl BoundStdio for Pump {
    fn take_child(&mut self) -> Option<ChildStdio> {
        self.child.take()
    }

    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let waiting = self.pending.is_some();
        if let Some(socket) = &self.socket {
            // Without room it is asked for; else only whether somebody is still there.
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLOUT, waiting);
            wanted.push((socket.as_fd(), flags));
        }
        if !waiting {
            let readers = self.sources.iter().map(|source| source.reader.as_fd());
            wanted.extend(readers.map(|reader| (reader, PollFlags::POLLIN)));
        }
        self.others.interests(wanted);
    }

    fn ready(&mut self, fd: RawFd, events: PollFlags) {
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let is_socket = |socket: &OwnedFd| socket.as_raw_fd() == fd;
        if self.socket.as_ref().is_some_and(is_socket) && events.intersects(gone) {
            self.socket = None;
        }
        self.pump();
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
        for _ in 0..LAST_WORDS {
            if !self.pump() {
                break;
            }
        }
        self.others.ended();
    }

    fn is_finished(&self) -> bool {
        self.ended && self.sources.is_empty() && self.pending.is_none() && self.others.is_finished()
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
