//! Where a terminal's output goes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::PollFlags;

use super::{
    buffer::{Buffer, Transfer},
    fifo::OutputFifo,
};

/// Where the monitor writes a terminal's output to. None of them blocks on a peer.
#[derive(Debug)]
pub(super) enum Sink {
    /// Nowhere.
    Discard,
    Fifo(OutputFifo),
    /// A file or a logger's pipe, nonblocking.
    Other(OwnedFd),
}

impl Sink {
    /// Passes on what it takes.
    pub(super) fn take_from(&mut self, buffer: &mut Buffer) -> Transfer {
        let transfer = match self.writer() {
            Some(writer) => buffer.drain(writer),
            None => Transfer::Ended,
        };
        if transfer == Transfer::Ended && !buffer.is_empty() {
            if !matches!(self, Self::Discard) {
                tracing::warn!("a terminal's output can no longer be written and is dropped");
                *self = Self::Discard;
            }
            buffer.clear();
        }
        transfer
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Fifo(fifo) => fifo.release(),
            Self::Discard | Self::Other(_) => *self = Self::Discard,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Discard => true,
            Self::Fifo(fifo) => fifo.is_closed(),
            Self::Other(_) => false,
        }
    }

    /// What to wait for, given whether there is something to be written.
    pub(super) fn interest(&self, pending: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if pending {
            return Some((self.writer()?, PollFlags::POLLOUT));
        }
        match self {
            Self::Fifo(fifo) => Some((fifo.interest()?, PollFlags::POLLIN)),
            Self::Discard | Self::Other(_) => None,
        }
    }

    /// The reader for which [`finish`](Self::finish) waits may be there.
    pub(super) fn ready(&mut self) {
        if let Self::Fifo(fifo) = self {
            fifo.ready();
        }
    }

    fn writer(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Discard => None,
            Self::Fifo(fifo) => fifo.writer(),
            Self::Other(fd) => Some(fd.as_fd()),
        }
    }
}
