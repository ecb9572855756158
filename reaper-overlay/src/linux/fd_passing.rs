//! Open files that one process hands over to another.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use serde::{Serialize, de::DeserializeOwned};

use super::helper::Helper;
use crate::contract::{Context, Error};

/// As many as go in one message; the kernel takes 253.
const AT_ONCE: usize = 64;

/// Two connected sockets.
fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Runs `body` in a helper that opens `count` files, and takes them over with what else it returns.
/// `what` names them in errors.
pub(crate) fn from_helper<T: Serialize + DeserializeOwned>(
    purpose: &'static str,
    what: impl AsRef<Path>,
    count: usize,
    body: impl FnOnce() -> Result<(Vec<OwnedFd>, T), Error>,
) -> Result<(Vec<OwnedFd>, T), Error> {
    let what = what.as_ref();
    let (ours, theirs) = pair().context("make a socket for", what)?;
    let answer = Helper::run(purpose, || {
        let (files, answer) = body()?;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send(&theirs, &files).context("hand over", what)?;
        Ok(answer)
    })?;
    // Else this process would hold the other end open, and wait for ever for files that were not sent.
    drop(theirs);
    let files = receive(&ours, count).context("take over", what)?;
    Ok((files, answer))
}

/// Hands over `files`. They wait in the socket until somebody receives them.
fn send(socket: &OwnedFd, files: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    for files in files.chunks(AT_ONCE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(files));
        sendmsg(
            socket,
            &[IoSlice::new(b"f")],
            &mut control,
            SendFlags::empty(),
        )?;
    }
    Ok(())
}

/// Takes over `count` files that were sent.
///
/// # Errors
/// `UnexpectedEof` if fewer came, for example because this process has too many files open.
fn receive(socket: &OwnedFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut files = Vec::with_capacity(count);
    while files.len() < count {
        let before = files.len();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let got = recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                files.extend(received);
            }
        }
        if files.len() == before || got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn more_than_fit_in_a_message_arrive_in_order() {
        let files: Vec<_> = (0..AT_ONCE as u64 + 3)
            .map(|length| {
                let file = tempfile::tempfile().unwrap();
                file.set_len(length).unwrap();
                file
            })
            .collect();
        let (ours, theirs) = pair().unwrap();
        let sent: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send(&theirs, &sent).unwrap();
        drop(theirs);
        let received = receive(&ours, files.len()).unwrap();
        for (at, file) in received.into_iter().enumerate() {
            let length = std::fs::File::from(file).metadata().unwrap().len();
            assert_eq!(length, at as u64);
        }
        let error = receive(&ours, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
