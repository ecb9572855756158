//! One turn of the monitor: wait for something to happen, and see to it.

use std::{
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Instant,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    connection::Connection,
    server::{Monitor, Phase},
};
use crate::channel;

/// Whose descriptor is ready.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Connection(usize),
    Gate(usize),
    Stdio(usize, RawFd),
    Freezer,
}

impl Monitor {
    /// Serves until there is nothing left to do. Returns the exit code.
    pub(super) fn run(mut self) -> i32 {
        while !self.is_done() {
            self.turn();
        }
        self.farewell()
    }

    fn is_done(&self) -> bool {
        let finished = self
            .processes
            .iter()
            .all(|process| process.stdio.is_finished());
        let answered = !self.connections.iter().any(Connection::has_answers);
        match self.phase {
            Phase::Alive | Phase::Ending(_) => false,
            Phase::Aborted => answered,
            Phase::Ended(_) if self.options.mirror_exit => finished && answered,
            // Loggers are given the time to finish; all other streams close with the monitor.
            Phase::Ended(_) if self.deleted => {
                answered
                    && self
                        .processes
                        .iter()
                        .all(|process| process.stdio.helpers().is_empty())
            }
            Phase::Ended(_) => finished && self.connections.is_empty(),
        }
    }

    fn turn(&mut self) {
        let ready = self.wait();
        // Gates first: whether a program was executed must be seen before its process is reaped.
        for &(source, _) in &ready {
            if let Source::Gate(index) = source {
                self.gate_ready(index);
            }
        }
        for &(source, events) in &ready {
            match source {
                Source::Gate(_) => {}
                Source::Signals => self.signals_ready(),
                Source::Listener => self.accept(),
                Source::Connection(index) => self.connection_ready(index, events),
                Source::Stdio(index, fd) => self.processes[index].stdio.ready(fd, events),
                Source::Freezer => self.freezer_ready(),
            }
        }
        self.deadlines();
        self.forget();
    }

    /// Waits for the next event or deadline. Nothing is watched that the monitor could do nothing
    /// about, so an idle monitor never wakes up.
    fn wait(&self) -> Vec<(Source, PollFlags)> {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        for (index, connection) in self.connections.iter().enumerate() {
            let (fd, flags) = connection.interest();
            sources.push(Source::Connection(index));
            fds.push(PollFd::new(fd, flags));
        }
        let mut wanted = Vec::new();
        for (index, process) in self.processes.iter().enumerate() {
            if let Some(gate) = &process.gate {
                sources.push(Source::Gate(index));
                fds.push(PollFd::new(gate.as_fd(), PollFlags::POLLIN));
            }
            process.stdio.interests(&mut wanted);
            for (fd, flags) in wanted.drain(..) {
                sources.push(Source::Stdio(index, fd.as_raw_fd()));
                fds.push(PollFd::new(fd, flags));
            }
        }
        if let Some(freezing) = &self.freezing {
            sources.push(Source::Freezer);
            fds.push(PollFd::new(freezing.events(), PollFlags::POLLPRI));
        }
        // An interruption is no event: the next turn polls again.
        if poll(&mut fds, self.timeout()).is_err() {
            return Vec::new();
        }
        let events = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        sources
            .into_iter()
            .zip(events)
            .filter(|(_, events)| !events.is_empty())
            .collect()
    }

    fn timeout(&self) -> PollTimeout {
        let stdio = self
            .processes
            .iter()
            .filter_map(|process| process.stdio.deadline());
        let ending = match &self.phase {
            Phase::Ending(ending) => Some(ending.deadline()),
            _ => None,
        };
        let freezing = self.freezing.as_ref().map(|freezing| freezing.deadline());
        match stdio.chain(ending).chain(freezing).min() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, or the last millisecond would be spent in a busy loop.
                let milliseconds = left.as_micros().div_ceil(1000);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn deadlines(&mut self) {
        let now = Instant::now();
        for process in &mut self.processes {
            if process
                .stdio
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                process.stdio.timeout();
            }
        }
        self.ending_deadline(now);
        self.freezing_deadline(now);
    }

    fn accept(&mut self) {
        while let Ok(Some(socket)) = channel::accept(self.listener.as_fd()) {
            self.connections
                .push(Connection::new(self.next_connection, socket));
            self.next_connection += 1;
        }
    }

    fn connection_ready(&mut self, index: usize, events: PollFlags) {
        if events.contains(PollFlags::POLLOUT) {
            self.connections[index].flush();
        }
        let number = self.connections[index].number;
        while let Some(message) = self.connections[index].receive() {
            self.answer(number, message);
        }
    }

    /// Drops clients that are gone, and what only they could have asked about.
    fn forget(&mut self) {
        let (closed, open): (Vec<_>, Vec<_>) =
            self.connections.drain(..).partition(Connection::is_closed);
        self.connections = open;
        for connection in &closed {
            self.abandoned(connection.number);
        }
        let connections = &self.connections;
        let connected = |number| connections.iter().any(|open| open.number == number);
        let mut index = 0;
        while index < self.processes.len() {
            if self.processes[index].is_unreachable(connected) {
                self.processes.remove(index);
            } else {
                index += 1;
            }
        }
    }
}
