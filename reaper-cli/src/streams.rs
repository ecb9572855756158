//! The caller's descriptors, for the processes that get them.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::{
        fd::{OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::errno::Errno;
use reaper_exec::io::{StdioFds, StdioRequest, StreamTarget, Streams, stdout_was_open};

use crate::{
    error::{Error, Result},
    sys,
};

/// Where this program prints: its standard output. If that was closed, printing fails as a write
/// to a closed descriptor does.
#[derive(Debug)]
pub(crate) struct Printer(io::Stdout);

impl Printer {
    pub(crate) fn stdout() -> Self {
        Self(io::stdout())
    }

    fn open(&mut self) -> io::Result<&mut io::Stdout> {
        if stdout_was_open() {
            Ok(&mut self.0)
        } else {
            Err(Errno::EBADF.into())
        }
    }
}

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A command that prints nothing does not need it.
        self.0.flush()
    }
}

/// This call's own standard streams. One that is closed is `/dev/null` for the process.
pub(crate) fn inherited() -> Result<StdioRequest> {
    let mut inherited = [None, None, None];
    let mut targets = [StreamTarget::Null, StreamTarget::Null, StreamTarget::Null];
    for number in 0..3 {
        let own = sys::duplicate(number as RawFd).map_err(Error::io("duplicate a stream"))?;
        if own.is_some() {
            targets[number] = StreamTarget::Inherit;
        }
        inherited[number] = own;
    }
    let [stdin, stdout, stderr] = targets;
    Ok(StdioRequest::new(
        Streams::new()
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr),
    )
    .with_attachments(StdioFds::new().with_inherited(inherited)))
}

/// This call's own standard streams, to be handed to a process that has others already.
pub(crate) fn duplicated() -> Result<[OwnedFd; 3]> {
    let own = |number: RawFd| {
        let failed = Error::io("open /dev/null");
        match sys::duplicate(number).map_err(Error::io("duplicate a stream"))? {
            Some(own) => Ok(own),
            None => OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from)
                .map_err(failed),
        }
    };
    Ok([own(0)?, own(1)?, own(2)?])
}

/// The descriptors of `--preserve-fds`, from 3 on.
pub(crate) fn preserved(count: u32) -> Result<Vec<OwnedFd>> {
    (3..3 + i64::from(count))
        .map(|number| {
            let missing = || Error::Option {
                option: "--preserve-fds",
                problem: format!("{count} were named, but descriptor {number} is not open"),
            };
            let raw = RawFd::try_from(number).map_err(|_| missing())?;
            sys::duplicate(raw)
                .map_err(Error::io("duplicate a descriptor"))?
                .ok_or_else(missing)
        })
        .collect()
}

/// Replaces the standard streams, which are the caller's, by `/dev/null`.
pub(crate) fn replace_by_null() -> Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(Error::io("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .map_err(|errno| Error::io("close the streams")(errno.into()))
}

/// A console socket that an engine listens on.
pub(crate) fn engine_console(path: &Path) -> Result<StdioRequest> {
    let socket = UnixStream::connect(path).map_err(Error::io(format!(
        "connect to the console socket {}",
        path.display()
    )))?;
    Ok(console(socket.into()))
}

/// A terminal whose master goes to `socket`.
pub(crate) fn console(socket: OwnedFd) -> StdioRequest {
    StdioRequest::new(Streams::default())
        .with_attachments(StdioFds::default().with_console_socket(socket))
}
