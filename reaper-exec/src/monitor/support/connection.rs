//! The monitor's clients.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::poll::PollFlags;

use crate::{
    channel::{self, Message},
    protocol::{Answer, Failure, Response},
};

/// So many answers may wait for a client; one that does not read them is not read from, either.
const MAX_QUEUED: usize = 64;

/// The number of the connection to whoever started the monitor.
pub(crate) const STARTER: u64 = 0;

/// Whom an answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub(crate) connection: u64,
    pub(crate) serial: u64,
}

/// A connected client.
pub(crate) struct Connection {
    pub(crate) number: u64,
    socket: OwnedFd,
    /// Answers that the socket had no room for.
    outbox: VecDeque<Response>,
    closed: bool,
}

impl Connection {
    pub(crate) fn new(number: u64, socket: OwnedFd) -> Self {
        Self {
            number,
            socket,
            outbox: VecDeque::new(),
            closed: false,
        }
    }

    pub(crate) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.accepts_requests());
        flags.set(PollFlags::POLLOUT, !self.outbox.is_empty());
        (self.socket.as_fd(), flags)
    }

    fn accepts_requests(&self) -> bool {
        self.outbox.len() < MAX_QUEUED
    }

    /// The socket has something to say.
    pub(crate) fn ready(&mut self, events: PollFlags) {
        if events.contains(PollFlags::POLLOUT) {
            self.flush();
        }
        // Of a client that is not heard no end of file is seen.
        if !self.accepts_requests() && events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.closed = true;
        }
    }

    /// The next message. A client that is gone, or sends what is no message, is closed.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        if self.closed || !self.accepts_requests() {
            return None;
        }
        match channel::receive(self.socket.as_fd()) {
            Ok(Some(message)) => Some(message),
            Err(error) if is_temporary(&error) => None,
            Ok(None) | Err(_) => {
                self.closed = true;
                None
            }
        }
    }

    pub(crate) fn reply(&mut self, serial: u64, answer: Result<Answer, Failure>) {
        self.outbox.push_back(Response { serial, answer });
        self.flush();
    }

    /// Sends what the socket has room for.
    fn flush(&mut self) {
        while let Some(response) = self.outbox.front() {
            match channel::send(self.socket.as_fd(), response, &[]) {
                Ok(()) => _ = self.outbox.pop_front(),
                Err(error) if is_temporary(&error) => return,
                Err(_) => {
                    self.closed = true;
                    self.outbox.clear();
                }
            }
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn has_answers(&self) -> bool {
        !self.outbox.is_empty()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
