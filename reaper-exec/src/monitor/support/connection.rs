//! The monitor's clients.
//!
//! A client that does not read its answers must neither block the monitor nor make it buffer
//! without bound: answers are queued up to a limit, and while a queue is full its client is not
//! read from.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::poll::PollFlags;

use crate::{
    channel::{self, Message},
    protocol::{Failure, Response, ResponseMessage},
};

/// How many answers are queued for a client before the monitor stops reading from it.
const MAX_QUEUED: usize = 64;

/// The number of the connection to the client that started the monitor.
pub(crate) const STARTER: u64 = 0;

/// Which request an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub(crate) connection: u64,
    pub(crate) serial: u64,
}

/// A connected client.
pub(crate) struct Connection {
    pub(crate) number: u64,
    socket: OwnedFd,
    /// Answers that did not fit into the socket's buffer yet.
    outbox: VecDeque<ResponseMessage>,
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

    /// Handles what poll(2) has reported for the socket, but for input.
    pub(crate) fn ready(&mut self, events: PollFlags) {
        if events.contains(PollFlags::POLLOUT) {
            self.flush();
        }
        // A client that is not read from is not seen to disconnect by an end of file.
        if !self.accepts_requests() && events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.closed = true;
        }
    }

    /// The next message. Closes the connection if the client has disconnected, or has sent
    /// something that is not a message.
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

    pub(crate) fn reply(&mut self, serial: u64, answer: Result<Response, Failure>) {
        self.outbox.push_back(ResponseMessage {
            serial,
            response: answer,
        });
        self.flush();
    }

    /// Sends queued answers until the socket's buffer is full.
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
