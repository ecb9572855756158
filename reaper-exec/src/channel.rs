//! Messages with descriptors over `SOCK_SEQPACKET` sockets.
//!
//! A packet is one tag byte and a JSON document, or, where the document is too large for a packet
//! (the kernel refuses a few hundred kilobytes with EMSGSIZE), the tag alone and a memfd with the
//! document as the last descriptor. A packet that did not fit into the receiver's buffers is an
//! error, never half a message.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Seek, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{MemfdFlags, Mode, OFlags},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::json;

/// The tag of a packet that has its document itself.
pub(crate) const INLINE: u8 = b'i';
const BY_MEMFD: u8 = b'm';
const INLINE_LIMIT: usize = 32 * 1024;
/// A document that a peer may send: specs are refused beyond a fraction of it long before.
const DOCUMENT_LIMIT: u64 = 64 * 1024 * 1024;
/// Descriptors in one message; the kernel's limit is 253 (`SCM_MAX_FD`).
pub(crate) const MAX_DESCRIPTORS: usize = 128;

/// A received message.
pub(crate) struct Message {
    /// The document.
    pub(crate) json: Vec<u8>,
    /// The descriptors that came with it.
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// Parses the document.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> io::Result<T> {
        json::parse(&self.json)
    }
}

/// A connected pair, close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = SocketType::SEQPACKET;
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// An address that fits `sockaddr_un` whatever the length of `path`: the socket is named through
/// a descriptor of its folder, which must live until the address was used.
pub(crate) fn short_address(path: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    use std::os::fd::AsRawFd;
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let folder = path.parent().ok_or_else(invalid)?;
    let name = path.file_name().ok_or_else(invalid)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    Ok((folder, SocketAddrUnix::new(&short)?))
}

/// A nonblocking listener at `path`.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    let listener = socket()?;
    let (_folder, address) = short_address(path)?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 128)?;
    Ok(listener)
}

/// The next connection, nonblocking; `None` if no client is waiting for one.
///
/// Every error is passing (accept(2)): descriptors or memory are short. The listener stays, and the
/// clients that wait at it are accepted later.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        match rustix::net::accept_with(listener, flags) {
            Ok(connection) => return Ok(Some(connection)),
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            // This client has gone away: the next one may be there.
            Err(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A nonblocking connection to the listener at `path`.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let connection = socket()?;
    let (_folder, address) = short_address(path)?;
    rustix::net::connect(&connection, &address)?;
    Ok(connection)
}

/// Sends a message. On a nonblocking socket whose buffer is full it is `WouldBlock`, and nothing
/// was sent.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut packet = vec![INLINE];
    serde_json::to_writer(&mut packet, message)?;
    let mut all = descriptors.to_vec();
    let spilled;
    if packet.len() > INLINE_LIMIT {
        spilled = spill(&packet[1..])?;
        all.push(spilled.as_fd());
        packet.truncate(1);
        packet[0] = BY_MEMFD;
    }
    if all.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from(rustix::io::Errno::TOOMANYREFS));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !all.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&all));
    }
    let flags = SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(&packet)], &mut ancillary, flags)?;
    Ok(())
}

fn spill(document: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create(
        "reaper-message",
        MemfdFlags::CLOEXEC,
    )?);
    file.write_all(document)?;
    file.rewind()?;
    Ok(file)
}

/// Receives a message; `None` when the peer has closed its end.
///
/// On a nonblocking socket without a message it is `WouldBlock`.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut packet = vec![0; INLINE_LIMIT + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || {
        let packet = &mut [IoSliceMut::new(&mut packet)];
        rustix::net::recvmsg(socket, packet, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    };
    let received = match receive() {
        // The peer has closed its end with a message of this one unread, which the kernel says once, and
        // before what the peer had sent until then.
        Err(rustix::io::Errno::CONNRESET) => receive(),
        received => received,
    };
    let received = match received {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(invalid("the message was cut short"));
    }
    packet.truncate(received.bytes);
    match packet.first() {
        None => Ok(None),
        Some(&INLINE) => {
            packet.remove(0);
            Ok(Some(Message {
                json: packet,
                descriptors,
            }))
        }
        Some(&BY_MEMFD) if packet.len() == 1 => {
            let document = descriptors
                .pop()
                .ok_or_else(|| invalid("the document is missing"))?;
            Ok(Some(Message {
                json: unspill(document)?,
                descriptors,
            }))
        }
        Some(_) => Err(invalid("the packet is of no known form")),
    }
}

fn unspill(document: OwnedFd) -> io::Result<Vec<u8>> {
    // Only files in memory know seals. Reading from anything else could take for ever.
    rustix::fs::fcntl_get_seals(&document).map_err(|_| invalid("the document is no memfd"))?;
    let mut json = Vec::new();
    File::from(document)
        .take(DOCUMENT_LIMIT + 1)
        .read_to_end(&mut json)?;
    if json.len() as u64 > DOCUMENT_LIMIT {
        return Err(invalid("the document is too large"));
    }
    Ok(json)
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests;
