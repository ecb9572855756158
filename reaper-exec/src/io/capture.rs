//! Output for the program that embeds the engine.
//!
//! A process's outputs are pipes that its monitor reads. What it reads it passes on over one
//! socket, a message for each read, so that the embedding program sees both outputs in one order:
//!
//! ```no_run
//! use reaper_exec::{io::{Capture, CaptureBinder, StandardBinder}, monitor};
//! use reaper_overlay::HostFilesystem;
//! # async fn create_and_start(_: reaper_exec::io::StdioRequest) {}
//!
//! # async fn example() -> std::io::Result<()> {
//! let (stdio, mut output) = Capture::new()?;
//! create_and_start(stdio).await;
//! while let Some(chunk) = output.next().await? {
//!     println!("{:?}: {} bytes", chunk.output, chunk.bytes.len());
//! }
//! # Ok(())
//! # }
//!
//! fn main() {
//!     let binder = || CaptureBinder::with_fallback(StandardBinder::new());
//!     monitor::run_if_monitor(|| monitor::MonitorConfig::new(HostFilesystem, binder()));
//!     // The program's own work.
//! }
//! ```

mod binder;
mod pump;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair},
};
use tokio::io::{Interest, unix::AsyncFd};

pub use self::binder::CaptureBinder;
use super::contract::{StdioFds, StdioRequest, StreamTarget, Streams};

/// The target of a captured output. Its socket comes with the request, in the place of the first
/// captured output's descriptor.
const TARGET: &str = "capture:";

/// The most that one message carries.
const CHUNK: usize = 32 * 1024;

/// One of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// What a process has written, at most 32 KiB of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// Where to.
    pub output: OutputStream,
    /// What. Never empty, and not cut at lines.
    pub bytes: Vec<u8>,
}

/// All that a process has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Captured {
    /// To its standard output.
    pub stdout: Vec<u8>,
    /// To its standard error.
    pub stderr: Vec<u8>,
}

/// The receiving end of a process's outputs, in the program that embeds the engine.
///
/// * **Nothing is lost** while this lives: who does not read fills the pipes, and the process
///   waits.
/// * **Nothing breaks** when it is dropped, or its program is killed: from then on the monitor
///   throws away what the process writes. It gets no SIGPIPE.
/// * **The end** comes when the process, and all that have inherited its outputs, have closed them;
///   of init's outputs at its exit at the latest, since all that it started is killed then. It also
///   comes if the container was not created, or is deleted.
/// * Within one output the order is that of writing. Between the two it is that in which the
///   monitor saw them.
#[derive(Debug)]
pub struct Capture(AsyncFd<OwnedFd>);

impl Capture {
    /// Makes a request for a process whose outputs are captured and whose input is empty, and the
    /// other end. The monitor's binder must be a [`CaptureBinder`]. Other inputs are set in the
    /// request.
    ///
    /// # Errors
    /// No socket could be made.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new() -> io::Result<(StdioRequest, Self)> {
        let (request, ours) = pair()?;
        let ours = crate::sys::watch(ours, Interest::READABLE)?;
        Ok((request, Self(ours)))
    }

    /// Waits for what the process writes next; `None` at the end. It may be dropped while it
    /// waits, and nothing is lost.
    ///
    /// # Errors
    /// What recv(2) said.
    pub async fn next(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(received) = ready.try_io(|socket| receive(socket.as_fd())) {
                return received;
            }
        }
    }

    /// Waits for the end, and returns all that came. It is kept in memory: for processes of which
    /// it is known that they do not write without end.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn all(mut self) -> io::Result<Captured> {
        let mut all = Captured::default();
        while let Some(chunk) = self.next().await? {
            match chunk.output {
                OutputStream::Stdout => all.stdout.extend(chunk.bytes),
                OutputStream::Stderr => all.stderr.extend(chunk.bytes),
            }
        }
        Ok(all)
    }
}

/// A request whose outputs are captured, and the socket that they come through.
pub(super) fn pair() -> io::Result<(StdioRequest, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )?;
    let captured = || StreamTarget::Uri(TARGET.to_owned());
    let request = StdioRequest {
        streams: Streams {
            stdin: StreamTarget::Null,
            stdout: captured(),
            stderr: captured(),
        },
        attachments: StdioFds {
            inherited: [None, Some(theirs), None],
            console_socket: None,
        },
    };
    Ok((request, ours))
}

/// Receives a message, without waiting.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Chunk>> {
    let mut message = vec![0; CHUNK + 1];
    let length = loop {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    message.truncate(length);
    let output = match message.first() {
        None => return Ok(None),
        Some(1) => OutputStream::Stdout,
        Some(_) => OutputStream::Stderr,
    };
    message.remove(0);
    Ok(Some(Chunk {
        output,
        bytes: message,
    }))
}
