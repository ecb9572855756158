//! The socket over which a runtime sends the master of a terminal that it has made
//! (`--console-socket`).

use std::{
    fs,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use crate::channel;

/// A listener that one runtime command connects to.
pub(crate) struct Console {
    listener: OwnedFd,
    /// By this descriptor the socket has a short path: `sockaddr_un` has room for 108 bytes.
    folder: OwnedFd,
    path: PathBuf,
}

impl Console {
    pub(crate) fn listen(path: PathBuf) -> io::Result<Self> {
        let listener = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let (folder, address) = channel::short_address(&path)?;
        rustix::net::bind(&listener, &address)?;
        rustix::net::listen(&listener, 1)?;
        Ok(Self {
            listener,
            folder,
            path,
        })
    }

    /// The path of the socket for a command line.
    pub(crate) fn argument(&self) -> PathBuf {
        let folder = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.folder.as_raw_fd()
        );
        let name = self.path.file_name().unwrap_or_default();
        PathBuf::from(folder).join(name)
    }

    /// Receives the terminal's master, which a command that succeeded has sent.
    pub(crate) fn receive(&self) -> io::Result<OwnedFd> {
        let nothing = || io::Error::other("the runtime has sent no terminal");
        let connection = channel::accept(self.listener.as_fd())?.ok_or_else(nothing)?;
        let mut name = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(
            &connection,
            &mut [IoSliceMut::new(&mut name)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )?;
        let sent = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        sent.ok_or_else(nothing)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
