//! Who is at the other end of a process's streams.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
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
    pub input: PathBuf,
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
    /// The FIFO that the output goes to, where it is one. To be asked for before the request is used.
    pub(super) fn output_fifo(&self) -> Option<PathBuf> {
        let StreamTarget::Uri(uri) = &self.stdio.streams.stdout else {
            return None;
        };
        let path = PathBuf::from(uri.strip_prefix("fifo://").unwrap_or(uri));
        let is_fifo = fs::metadata(&path).is_ok_and(|there| there.file_type().is_fifo());
        is_fifo.then_some(path)
    }

    /// Writes to the input as a client that comes and goes.
    pub(super) fn write(&self, bytes: &[u8]) {
        let mut options = OpenOptions::new();
        // With a reader there, as there has to be one, this is as without the flag.
        options.write(true).custom_flags(libc::O_NONBLOCK);
        let writer = options.open(&self.input);
        let mut writer = writer.expect("open the input, which has to have a reader");
        writer.write_all(bytes).expect("write");
    }

    /// A client of two FIFOs, made at `path` with other endings.
    ///
    /// # Panics
    /// They cannot be made.
    pub fn of_fifos(path: &Path) -> Self {
        let (input, output) = (path.with_extension("in"), path.with_extension("out"));
        for fifo in [&input, &output] {
            mkfifo(fifo, Mode::S_IRWXU).expect("make a FIFO");
        }
        let reader = open_reader(&output);
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

/// Opens a FIFO for reading, and waits for no writer.
pub(super) fn open_reader(fifo: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(fifo).expect("open a FIFO")
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
