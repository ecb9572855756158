//! A monitor in miniature.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    process::{Child, Command},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reaper_spec::{ConsoleSize, ContainerId};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::client::Output;
use crate::io::contract::{BindRequest, BoundStdio, ChildStdio, IoBinder, IoError, StdioRequest};

/// How long nothing has to happen for a process to be taken as one that is held up. A check is not as strict
/// where this is too short, and never wrong.
const MOMENT: Duration = Duration::from_millis(100);

/// A process whose streams are served.
pub(super) struct Process {
    pub(super) bound: Box<dyn BoundStdio>,
    child: Option<(Child, OwnedFd)>,
    code: Option<i32>,
    limit: Duration,
}

impl Process {
    /// The streams of a process, which has a terminal of a size if one is given.
    pub(super) fn bind(
        binder: &dyn IoBinder,
        stdio: StdioRequest,
        terminal: Option<ConsoleSize>,
        limit: Duration,
    ) -> Result<Self, IoError> {
        let id: ContainerId = "conformance".parse().expect("an id");
        let request = BindRequest {
            id: &id,
            namespace: "",
            stdio,
            terminal: terminal.map(Some),
            master: None,
            owner: None,
        };
        let mut process = Self {
            bound: binder.bind(request)?,
            child: None,
            code: None,
            limit,
        };
        while !process.bound.is_ready()? {
            process.turn(None);
        }
        Ok(process)
    }

    pub(super) fn take_streams(&mut self) -> [OwnedFd; 3] {
        match self.bound.take_child() {
            Some(ChildStdio::Streams(streams)) => streams,
            other => panic!("no streams for the child: {other:?}"),
        }
    }

    pub(super) fn take_terminal(&mut self) -> OwnedFd {
        match self.bound.take_child() {
            Some(ChildStdio::Terminal(slave)) => slave,
            other => panic!("no terminal for the child: {other:?}"),
        }
    }

    /// Runs a line of shell with the streams.
    pub(super) fn run(&mut self, script: &str) {
        let streams = self.take_streams();
        self.run_with(streams, script);
    }

    /// Runs a line of shell with the terminal, which does not become its controlling one.
    pub(super) fn run_on_terminal(&mut self, script: &str) {
        let slave = self.take_terminal();
        let copy = || slave.try_clone().expect("dup");
        self.run_with([copy(), copy(), copy()], script);
    }

    fn run_with(&mut self, [stdin, stdout, stderr]: [OwnedFd; 3], script: &str) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let child = command.spawn().expect("run a shell");
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("open a pidfd");
        self.child = Some((child, pidfd));
    }

    /// Serves the streams, and no client, until nothing happens for a moment: what the process writes is
    /// held up by then, unless the machine is slow.
    pub(super) fn settle(&mut self) {
        while self.child.is_some() && self.poll(None, MOMENT).is_some() {}
    }

    /// One poll(2) and what follows from it. Whether the client's descriptor reported something.
    pub(super) fn turn(&mut self, client: Option<BorrowedFd<'_>>) -> bool {
        let reported = self.poll(client, self.limit);
        reported.unwrap_or_else(|| panic!("nothing happened for {:?}", self.limit))
    }

    /// As [`turn`](Self::turn); `None` if nothing happened within `limit`.
    fn poll(&mut self, client: Option<BorrowedFd<'_>>, limit: Duration) -> Option<bool> {
        let mut wanted = Vec::new();
        self.bound.interests(&mut wanted);
        let own = wanted.len();
        wanted.extend(client.map(|fd| (fd, PollFlags::POLLIN)));
        let pidfd = self.child.as_ref().map(|(_, pidfd)| pidfd.as_fd());
        wanted.extend(pidfd.map(|fd| (fd, PollFlags::POLLIN)));
        let mut fds: Vec<_> = wanted
            .iter()
            .map(|&(fd, flags)| PollFd::new(fd, flags))
            .collect();
        let limit = PollTimeout::try_from(limit).expect("a short limit");
        if poll(&mut fds, limit).expect("poll") == 0 {
            return None;
        }
        let events: Vec<_> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        let ready: Vec<_> = wanted[..own]
            .iter()
            .map(|(fd, _)| fd.as_raw_fd())
            .zip(events.iter().copied())
            .filter(|(_, events)| !events.is_empty())
            .collect();
        let client_ready = client.is_some() && !events[own].is_empty();
        let ended = self.child.is_some() && events.last().is_some_and(|last| !last.is_empty());
        for (fd, events) in ready {
            self.bound.ready(fd, events);
        }
        if ended && let Some((mut child, _)) = self.child.take() {
            self.code = child.wait().expect("wait").code();
            self.bound.ended();
        }
        Some(client_ready)
    }

    /// Serves the streams until the process has ended: its code, none if a signal ended it.
    pub(super) fn code(&mut self) -> Option<i32> {
        while self.child.is_some() {
            self.turn(None);
        }
        self.code
    }

    /// Serves the streams until a client has read so much, or the end.
    pub(super) fn read(&mut self, output: &mut dyn Output, enough: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < enough {
            if !self.turn(Some(output.as_fd())) {
                continue;
            }
            match output.read() {
                Ok(read) if read.is_empty() => break,
                Ok(read) => bytes.extend(read),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("read: {error}"),
            }
        }
        bytes
    }

    /// Serves the streams until a client has read all.
    pub(super) fn read_all(&mut self, output: &mut dyn Output) -> Vec<u8> {
        self.read(output, usize::MAX)
    }

    /// Serves the streams until nothing is held any more.
    pub(super) fn finish(&mut self) {
        while !self.bound.is_finished() {
            self.turn(None);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
