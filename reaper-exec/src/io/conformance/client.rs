//! Who is at the other end of a process's streams.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::io::{
    capture,
    contract::{StdioRequest, StreamTarget, Streams},
};

/// A request, and the client at its other end.
#[derive(Debug)]
pub struct Client {
    /// What the binder is asked for: an input, an output, and no error output.
    pub stdio: StdioRequest,
    /// Where the output is read from.
    pub output: Box<dyn Output>,
    /// The FIFO that the input is written to.
    pub input: std::path::PathBuf,
}

/// Where a client reads an output from. The descriptor is polled for it.
pub trait Output: AsFd + fmt::Debug {
    /// Reads what is there, without waiting; nothing at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is nothing yet.
    fn read(&mut self) -> io::Result<Vec<u8>>;
}

impl Client {
    /// A client of two FIFOs, made at `path` with other endings.
    ///
    /// # Panics
    /// They cannot be made.
    pub fn of_fifos(path: &Path) -> Self {
        let (input, output) = (path.with_extension("in"), path.with_extension("out"));
        for fifo in [&input, &output] {
            mkfifo(fifo, Mode::S_IRWXU).expect("make a FIFO");
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let reader = options.open(&output).expect("open a FIFO");
        let uri = |path: &Path| StreamTarget::Uri(path.to_str().expect("a path").to_owned());
        Self {
            stdio: StdioRequest {
                streams: Streams {
                    stdin: uri(&input),
                    stdout: uri(&output),
                    stderr: StreamTarget::Null,
                },
                ..StdioRequest::default()
            },
            output: Box::new(reader),
            input,
        }
    }

    /// A client that captures the output, for a [`CaptureBinder`](crate::io::CaptureBinder). The
    /// input is a FIFO, made at `path` with another ending.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn capturing(path: &Path) -> Self {
        let mut client = Self::of_fifos(path);
        let (request, socket) = capture::pair().expect("a socket");
        client.stdio.streams.stdout = request.streams.stdout;
        client.stdio.attachments = request.attachments;
        client.output = Box::new(Socket(socket));
        client
    }
}

impl Output for File {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 64 * 1024];
        let length = Read::read(self, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

#[derive(Debug)]
struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Output for Socket {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let chunk = capture::receive(self.as_fd())?;
        Ok(chunk.map(|chunk| chunk.bytes).unwrap_or_default())
    }
}
