//! A scripted binder for tests.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd, BorrowedFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reaper_spec::{ConsoleSize, ContainerId};

use super::{
    contract::{BindRequest, BoundStdio, ChildStdio, IoBinder, IoError, Stream, Streams},
    file,
};

/// A binder for tests of what binds and serves streams: a process gets `/dev/null`, and what is
/// asked is written down. Binding fails, and streams are not ready, where the script says so.
///
/// Clones are handles of one binder.
///
/// ```
/// use reaper_exec::io::{BindRequest, BoundStdio, FakeBinder, IoBinder, StdioRequest};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let binder = FakeBinder::new();
/// binder.hold();
/// let id = "web-1".parse()?;
/// let mut streams = binder.bind(BindRequest::new(&id, StdioRequest::default()))?;
/// assert!(!streams.is_ready()?, "the process waits");
/// binder.release();
/// assert!(streams.is_ready()?);
/// streams.ended();
/// assert!(binder.seen()[0].ended);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeBinder(Arc<Mutex<State>>);

/// What was asked of the streams of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The container.
    pub id: ContainerId,
    /// Where the streams were to go.
    pub streams: Streams,
    /// Whether a terminal was wanted, and the size that it was given last.
    pub terminal: Option<Option<ConsoleSize>>,
    /// The input was ended.
    pub stdin_closed: bool,
    /// The process has ended.
    pub ended: bool,
    /// The streams were dropped.
    pub dropped: bool,
}

#[derive(Debug, Default)]
struct State {
    failures: VecDeque<IoError>,
    /// While this exists, streams wait. Dropping it closes the pipe that they poll.
    held: Option<(PipeReader, PipeWriter)>,
    seen: Vec<Seen>,
}

impl FakeBinder {
    /// One that binds everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next binding fails, and is not written down.
    pub fn fail_next(&self, error: IoError) {
        self.state().failures.push_back(error);
    }

    /// Streams that are bound from now on are not ready until they are released.
    ///
    /// # Panics
    /// The process can have no more descriptors.
    pub fn hold(&self) {
        self.state().held = Some(io::pipe().expect("a pipe"));
    }

    /// Streams are ready, those that were bound before too.
    pub fn release(&self) {
        self.state().held = None;
    }

    /// What was asked, in the order of binding.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IoBinder for FakeBinder {
    fn bind(&self, request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        let mut state = self.state();
        if let Some(error) = state.failures.pop_front() {
            return Err(error);
        }
        let hold = match &state.held {
            Some((reader, _)) => Some(reader.try_clone().map_err(|source| IoError::System {
                operation: "share a pipe".to_owned(),
                source,
            })?),
            None => None,
        };
        let [input, output, errors] = Stream::ALL.map(file::null);
        state.seen.push(Seen {
            id: request.id.clone(),
            streams: request.stdio.streams,
            terminal: request.terminal,
            stdin_closed: false,
            ended: false,
            dropped: false,
        });
        Ok(Box::new(FakeStdio {
            binder: self.clone(),
            index: state.seen.len() - 1,
            child: Some(ChildStdio::Streams([input?, output?, errors?])),
            hold,
        }))
    }
}

struct FakeStdio {
    binder: FakeBinder,
    index: usize,
    child: Option<ChildStdio>,
    hold: Option<PipeReader>,
}

impl FakeStdio {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.binder.state().seen[self.index]);
    }
}

impl BoundStdio for FakeStdio {
    fn take_child(&mut self) -> Option<ChildStdio> {
        self.child.take()
    }

    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let hold = self.hold.as_ref().map(AsFd::as_fd);
        wanted.extend(hold.map(|hold| (hold, PollFlags::POLLIN)));
    }

    fn ready(&mut self, _fd: RawFd, _events: PollFlags) {
        self.hold = self.hold.take().filter(is_held);
    }

    fn close_stdin(&mut self) {
        self.note(|seen| seen.stdin_closed = true);
    }

    fn is_ready(&self) -> Result<bool, IoError> {
        Ok(!self.hold.as_ref().is_some_and(is_held))
    }

    fn resize(&mut self, size: ConsoleSize) -> io::Result<()> {
        self.note(|seen| {
            if let Some(known) = &mut seen.terminal {
                *known = Some(size);
            }
        });
        Ok(())
    }

    fn ended(&mut self) {
        self.child = None;
        self.note(|seen| seen.ended = true);
    }

    fn is_finished(&self) -> bool {
        self.child.is_none()
    }
}

impl Drop for FakeStdio {
    fn drop(&mut self) {
        self.note(|seen| seen.dropped = true);
    }
}

/// Whether the test still has its end of a hold.
fn is_held(hold: &PipeReader) -> bool {
    let mut fds = [PollFd::new(hold.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}
