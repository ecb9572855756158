//! Who reads the pipes, and writes what they hold to the journal.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    errno::Errno,
    poll::PollFlags,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket},
};

use crate::io::{
    buffer::{Buffer, Transfer},
    tapped::Pump,
};

/// A stream of the journal: a socket whose first lines describe those that follow.
#[derive(Debug)]
pub(super) struct Connection {
    address: UnixAddr,
    header: String,
    /// Nonblocking. `None` while the journal does not listen.
    socket: Option<OwnedFd>,
}

impl Connection {
    /// Connects, without waiting for anything.
    pub(super) fn open(path: &Path, header: String) -> io::Result<Self> {
        let mut connection = Self {
            address: UnixAddr::new(path)?,
            header,
            socket: None,
        };
        connection.connect()?;
        Ok(connection)
    }

    fn connect(&mut self) -> Result<&OwnedFd, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let new = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(new.as_raw_fd(), &self.address)?;
        // A new socket has room for it.
        send(
            new.as_raw_fd(),
            self.header.as_bytes(),
            MsgFlags::MSG_NOSIGNAL,
        )?;
        Ok(self.socket.insert(new))
    }

    /// Writes as much as the socket's buffer takes, to a new connection if the old one was closed.
    fn take_from(&mut self, buffer: &mut Buffer) -> Transfer {
        if let Some(socket) = &self.socket {
            let transfer = buffer.drain(socket);
            if transfer != Transfer::Ended {
                return transfer;
            }
            self.socket = None;
        }
        match self.connect() {
            Ok(socket) => buffer.drain(socket),
            Err(_) => Transfer::Ended,
        }
    }
}

/// An output on its way to the journal.
#[derive(Debug)]
pub(super) struct Passage {
    /// Nonblocking. `None` after its end.
    reader: Option<OwnedFd>,
    buffer: Buffer,
    journal: Connection,
    losing: bool,
}

impl Passage {
    pub(super) fn new(reader: OwnedFd, journal: Connection) -> Self {
        Self {
            reader: Some(reader),
            buffer: Buffer::new(),
            journal,
            losing: false,
        }
    }

    /// Reads once and writes once. Says whether anything was moved.
    fn pump(&mut self) -> bool {
        let mut moved = false;
        if self.buffer.is_empty()
            && let Some(reader) = &self.reader
        {
            match self.buffer.fill(reader) {
                Transfer::Moved(_) => moved = true,
                Transfer::Stalled => {}
                Transfer::Ended => self.reader = None,
            }
        }
        moved |= self.flush();
        if self.is_done() {
            self.journal.socket = None;
        }
        moved
    }

    fn flush(&mut self) -> bool {
        if self.buffer.is_empty() {
            return false;
        }
        match self.journal.take_from(&mut self.buffer) {
            Transfer::Moved(_) => {
                self.losing = false;
                true
            }
            Transfer::Stalled => false,
            Transfer::Ended => {
                if !self.losing {
                    tracing::warn!("the journal is gone; what is written is lost until it is back");
                }
                self.losing = true;
                self.buffer.clear();
                true
            }
        }
    }

    fn is_done(&self) -> bool {
        self.reader.is_none() && self.buffer.is_empty()
    }
}

/// All outputs of a process that go to the journal.
#[derive(Debug)]
pub(super) struct Entries(pub(super) Vec<Passage>);

impl Pump for Entries {
    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        for passage in &self.0 {
            let waiting = !passage.buffer.is_empty();
            if let Some(socket) = &passage.journal.socket {
                // POLLOUT only while lines wait; POLLHUP always reports that the journal has closed
                // it.
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::POLLOUT, waiting);
                wanted.push((socket.as_fd(), flags));
            }
            if !waiting && let Some(reader) = &passage.reader {
                wanted.push((reader.as_fd(), PollFlags::POLLIN));
            }
        }
    }

    fn ready(&mut self, fd: RawFd, events: PollFlags) {
        if !events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
        for passage in &mut self.0 {
            let socket = &mut passage.journal.socket;
            if socket
                .as_ref()
                .is_some_and(|socket| socket.as_raw_fd() == fd)
            {
                *socket = None;
            }
        }
    }

    fn pump(&mut self) -> bool {
        self.0
            .iter_mut()
            .fold(false, |moved, passage| passage.pump() | moved)
    }

    fn is_done(&self) -> bool {
        self.0.iter().all(Passage::is_done)
    }
}
