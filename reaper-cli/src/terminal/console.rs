//! Getting the master of a terminal that a monitor made, the way runc's callers do.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::error::{Error, Result};

/// How long a monitor that has reported success may take to have sent the master.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A console socket of our own.
#[derive(Debug)]
pub(crate) struct Console(UnixStream);

impl Console {
    /// A console socket, and the end that goes to the monitor.
    pub(crate) fn new() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("make a console socket"))?;
        ours.set_read_timeout(Some(RECEIVE_TIMEOUT))
            .map_err(Error::io("set a time limit"))?;
        Ok((Self(ours), theirs.into()))
    }

    /// The master. To be called when the process was made: it has been sent then.
    pub(crate) fn receive(self) -> Result<OwnedFd> {
        self.take()
            .map_err(Error::io("receive the terminal from the monitor"))
    }

    fn take(self) -> io::Result<OwnedFd> {
        let mut name = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        rustix::io::retry_on_intr(|| {
            recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut name)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(master) = descriptors.next()
            {
                return Ok(master);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "no terminal came",
        ))
    }
}
