//! A bounded buffer between two descriptors that are ready at different times.

use std::os::fd::AsFd;

use nix::{errno::Errno, unistd};

/// How much a slow peer may be behind before the other side is no longer read.
const CAPACITY: usize = 32 * 1024;

/// Bytes on their way.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What came of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// So many bytes, at least one.
    Moved(usize),
    /// Nothing: the descriptor would block, or there is no room or nothing to be written.
    Stalled,
    /// The other end was closed. A terminal's master reports that by EIO.
    Ended,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; CAPACITY],
            start: 0,
            end: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn has_room(&self) -> bool {
        self.start > 0 || self.end < CAPACITY
    }

    pub(super) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Reads once from a nonblocking descriptor.
    pub(super) fn fill(&mut self, source: impl AsFd) -> Transfer {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == CAPACITY {
            return Transfer::Stalled;
        }
        match retry(|| unistd::read(&source, &mut self.bytes[self.end..])) {
            Ok(0) => Transfer::Ended,
            Ok(count) => {
                self.end += count;
                Transfer::Moved(count)
            }
            Err(Errno::EAGAIN) => Transfer::Stalled,
            Err(_) => Transfer::Ended,
        }
    }

    /// Writes once to a descriptor.
    pub(super) fn drain(&mut self, sink: impl AsFd) -> Transfer {
        if self.is_empty() {
            return Transfer::Stalled;
        }
        match retry(|| unistd::write(&sink, &self.bytes[self.start..self.end])) {
            Ok(count) => {
                self.start += count;
                if self.is_empty() {
                    self.clear();
                }
                Transfer::Moved(count)
            }
            Err(Errno::EAGAIN) => Transfer::Stalled,
            Err(_) => Transfer::Ended,
        }
    }
}

fn retry(mut transfer: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match transfer() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
