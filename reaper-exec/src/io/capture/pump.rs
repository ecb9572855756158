//! The monitor's side: who reads the pipes and passes on what they hold.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    poll::PollFlags,
    sys::socket::{MsgFlags, send},
    unistd::read,
};

use super::{CHUNK, OutputStream};
use crate::io::tapped::Pump;

/// A pipe that the process writes to.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) output: OutputStream,
    /// Nonblocking.
    pub(super) reader: OwnedFd,
}

/// Passes on what comes through the pipes, each read as a message.
pub(super) struct Messages {
    /// Without those that have come to their end.
    sources: Vec<Source>,
    /// `None` once the receiver has closed it: output is thrown away.
    socket: Option<OwnedFd>,
    /// A message for which there was no room.
    pending: Option<Vec<u8>>,
}

impl Messages {
    pub(super) fn new(sources: Vec<Source>, socket: OwnedFd) -> Self {
        Self {
            sources,
            socket: Some(socket),
            pending: None,
        }
    }

    /// Sends the message that waits. Returns whether none waits any more.
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
            // The receiver has closed its end.
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

impl Pump for Messages {
    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let waiting = self.pending.is_some();
        if let Some(socket) = &self.socket {
            // POLLOUT only while a message waits; POLLHUP always reports that the receiver has
            // closed its end.
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLOUT, waiting);
            wanted.push((socket.as_fd(), flags));
        }
        if !waiting {
            let readers = self.sources.iter().map(|source| source.reader.as_fd());
            wanted.extend(readers.map(|reader| (reader, PollFlags::POLLIN)));
        }
    }

    fn ready(&mut self, fd: RawFd, events: PollFlags) {
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let is_socket = |socket: &OwnedFd| socket.as_raw_fd() == fd;
        if self.socket.as_ref().is_some_and(is_socket) && events.intersects(gone) {
            self.socket = None;
        }
    }

    /// One message of each pipe.
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

    fn is_done(&self) -> bool {
        self.sources.is_empty() && self.pending.is_none()
    }
}
