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

/// Whom an answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyTo {
    pub(super) connection: u64,
    pub(super) serial: u64,
}

/// A connected client.
pub(super) struct Connection {
    pub(super) number: u64,
    socket: OwnedFd,
    /// Answers that the socket had no room for. A client that never reads costs memory, not time.
    outbox: VecDeque<Response>,
    closed: bool,
}

impl Connection {
    pub(super) fn new(number: u64, socket: OwnedFd) -> Self {
        Self {
            number,
            socket,
            outbox: VecDeque::new(),
            closed: false,
        }
    }

    pub(super) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, !self.outbox.is_empty());
        (self.socket.as_fd(), flags)
    }

    /// The next message. A client that is gone, or sends what is no message, is closed.
    pub(super) fn receive(&mut self) -> Option<Message> {
        match channel::receive(self.socket.as_fd()) {
            Ok(Some(message)) => Some(message),
            Err(error) if is_temporary(&error) => None,
            Ok(None) | Err(_) => {
                self.closed = true;
                None
            }
        }
    }

    pub(super) fn reply(&mut self, serial: u64, answer: Result<Answer, Failure>) {
        self.outbox.push_back(Response { serial, answer });
        self.flush();
    }

    /// Sends what the socket has room for.
    pub(super) fn flush(&mut self) {
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

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.outbox.is_empty()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
