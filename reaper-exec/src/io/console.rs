//! A terminal whose master was sent to a console socket.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    fcntl::OFlag,
    poll::PollFlags,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use reaper_spec::ConsoleSize;

use super::{
    contract::{BoundStdio, ChildStdio},
    locate::reopen,
    pty::{self, Pty},
};

/// The monitor's side of a terminal that was sent to a console socket: next to nothing.
///
/// It must keep neither the master, or the terminal would not hang up with the receiver's, nor the
/// slave, or the receiver would not see the terminal's end. To be able to resize it nevertheless,
/// it keeps the slave's place, which does not keep the terminal open.
#[derive(Debug)]
pub(super) struct SentConsole {
    slave: Option<OwnedFd>,
    place: Option<OwnedFd>,
}

impl SentConsole {
    /// Sends the master, with the terminal's name as the message.
    pub(super) fn send(terminal: Pty, socket: &OwnedFd) -> io::Result<Self> {
        let place = reopen(&terminal.slave, OFlag::O_PATH)?;
        let data = [IoSlice::new(terminal.name.as_bytes())];
        let masters = [terminal.master.as_raw_fd()];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let rights = [ControlMessage::ScmRights(&masters)];
        sendmsg::<()>(socket.as_raw_fd(), &data, &rights, flags, None)?;
        Ok(Self {
            slave: Some(terminal.slave),
            place: Some(place),
        })
    }
}

impl BoundStdio for SentConsole {
    fn take_child(&mut self) -> Option<ChildStdio> {
        self.slave.take().map(ChildStdio::Terminal)
    }

    fn interests<'a>(&'a self, _wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {}

    fn ready(&mut self, _fd: RawFd, _events: PollFlags) {}

    fn close_stdin(&mut self) {}

    fn resize(&mut self, size: ConsoleSize) -> io::Result<()> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        let slave = reopen(place, OFlag::O_RDWR | OFlag::O_NONBLOCK)?;
        pty::resize(&slave, size)
    }

    fn ended(&mut self) {
        self.slave = None;
        self.place = None;
    }

    fn is_finished(&self) -> bool {
        self.place.is_none()
    }
}
