//! Streams of one's own: outputs that go to a collector, which listens on a Unix socket.
//! `collect SOCKET COMMAND…`, as root; `socat UNIX-LISTEN:SOCKET,fork -` is a collector.
//!
//! A binder runs in the monitor, which has one thread: it never waits for a peer. A process gets the
//! writing end of a pipe, so that a collector that goes away costs it neither a signal nor an error,
//! and it waits where the collector does not read. Another binder binds what this one does not know.

use std::{
    error::Error as StdError,
    io::{self, PipeReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::{fs::fchown, net::UnixStream},
    },
    process::ExitCode,
    sync::Arc,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use reaper_examples::foreground;
use reaper_exec::{
    BindRequest, BoundStdio, Engine, HostExecutor, IoBinder,
    io::{ChildStdio, IoError, PollFlags, StandardBinder, StreamTarget},
    monitor,
};
use reaper_overlay::HostFilesystem;
use reaper_spec::ConsoleSize;
use reaper_state::{MemoryStore, StateRoot};

const SCHEME: &str = "collector://";

/// Binds outputs to `collector:///PATH/OF/SOCKET`, and leaves the rest to `B`.
struct Collector<B>(B);

impl<B: IoBinder> IoBinder for Collector<B> {
    fn bind(&self, mut request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        // A terminal's output stays with the other binder, which refuses what it does not know.
        if request.terminal.is_some() {
            return self.0.bind(request);
        }
        let (mut ends, mut outputs) = ([None, None], Vec::new());
        let streams = &mut request.stdio.streams;
        let targets = [&mut streams.stdout, &mut streams.stderr];
        for (end, target) in ends.iter_mut().zip(targets) {
            if let StreamTarget::Uri(uri) = target
                && let Some(path) = uri.strip_prefix(SCHEME)
            {
                let (output, writer) =
                    Output::open(path, request.owner).map_err(|source| IoError::System {
                        operation: format!("connect to {path}"),
                        source,
                    })?;
                outputs.push(output);
                *end = Some(writer);
                *target = StreamTarget::Null;
            }
        }
        let others = self.0.bind(request)?;
        Ok(Box::new(Collected {
            others,
            ends,
            outputs,
        }))
    }
}

/// One output, on its way to the collector.
struct Output {
    /// Nonblocking. `None` after its end.
    reader: Option<PipeReader>,
    /// What was read and is not written yet.
    waiting: Vec<u8>,
    /// Nonblocking. `None` once it was closed at the other end: what comes then is thrown away.
    socket: Option<UnixStream>,
}

impl Output {
    /// Connects, and makes the end that the process gets.
    fn open(path: &str, owner: Option<(u32, u32)>) -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        let (reader, writer) = io::pipe()?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        if let Some((uid, gid)) = owner {
            // So that the process can open its /dev/stdout.
            fchown(&writer, Some(uid), Some(gid))?;
        }
        let output = Self {
            reader: Some(reader),
            waiting: Vec::new(),
            socket: Some(socket.into()),
        };
        Ok((output, writer.into()))
    }

    /// Moves what can be moved without waiting.
    fn pump(&mut self) {
        let mut buffer = [0; 16 * 1024];
        loop {
            while let (Some(socket), false) = (&mut self.socket, self.waiting.is_empty()) {
                match socket.write(&self.waiting) {
                    Ok(written) => drop(self.waiting.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(_) => self.socket = None,
                }
            }
            self.waiting.clear();
            let Some(reader) = &mut self.reader else {
                // The collector sees the end.
                self.socket = None;
                return;
            };
            match reader.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.reader = None,
                Ok(read) => self.waiting.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

/// The streams of one process.
struct Collected {
    others: Box<dyn BoundStdio>,
    ends: [Option<OwnedFd>; 2],
    outputs: Vec<Output>,
}

impl BoundStdio for Collected {
    fn take_child(&mut self) -> Option<ChildStdio> {
        let mut child = self.others.take_child()?;
        if let ChildStdio::Streams([_, outputs @ ..]) = &mut child {
            for (output, end) in outputs.iter_mut().zip(&mut self.ends) {
                if let Some(end) = end.take() {
                    *output = end;
                }
            }
        }
        Some(child)
    }
    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        for output in &self.outputs {
            match (&output.socket, &output.reader) {
                (Some(socket), _) if !output.waiting.is_empty() => {
                    wanted.push((socket.as_fd(), PollFlags::POLLOUT));
                }
                (_, Some(reader)) => wanted.push((reader.as_fd(), PollFlags::POLLIN)),
                _ => {}
            }
        }
        self.others.interests(wanted);
    }
    fn ready(&mut self, fd: RawFd, events: PollFlags) {
        self.outputs.iter_mut().for_each(Output::pump);
        self.others.ready(fd, events);
    }
    fn close_stdin(&mut self) {
        self.others.close_stdin();
    }
    fn resize(&mut self, size: ConsoleSize) -> io::Result<()> {
        self.others.resize(size)
    }
    fn ended(&mut self) {
        self.outputs.iter_mut().for_each(Output::pump);
        self.others.ended();
    }
    fn is_finished(&self) -> bool {
        let is_closed = |output: &Output| output.reader.is_none() && output.socket.is_none();
        self.outputs.iter().all(is_closed) && self.others.is_finished()
    }
}

fn main() -> ExitCode {
    let binder = || Collector(StandardBinder::new());
    monitor::run_if_monitor(|| monitor::MonitorConfig::new(HostFilesystem, binder()));
    run(std::env::args().skip(1)).unwrap_or_else(|error| {
        eprintln!("collect: {error}");
        ExitCode::FAILURE
    })
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<ExitCode, Box<dyn StdError>> {
    let socket = arguments.next().ok_or("no socket is named")?;
    let folder = tempfile::tempdir()?;
    let root = StateRoot::new(folder.path());
    let executor = HostExecutor::new(root.clone());
    let engine = Engine::new(executor, Arc::new(MemoryStore::new()), root);
    let mut container = foreground::container("collected", arguments)?;
    foreground::redirect(&mut container, &format!("{SCHEME}{socket}"));
    foreground::run(&engine, container)
}

#[cfg(test)]
#[path = "collect/tests.rs"]
mod tests;
