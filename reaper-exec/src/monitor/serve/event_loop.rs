//! The event loop: one thread waits for all descriptors by poll(2) and handles those that are
//! ready.
//!
//! Start sockets are handled before signals: whether a program was executed must be known before
//! its process is reaped. A client has at most 32 requests handled in a turn, so that one that
//! sends without end does not starve the others. Nothing is polled that the monitor would not act
//! on, so an idle monitor does not wake up.

use std::{
    os::fd::{AsFd, AsRawFd, RawFd},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use reaper_spec::ExitStatus;

use crate::{
    channel,
    monitor::{
        container::monitor::{Freezing, Monitor},
        support::{
            connection::{Connection, STARTER},
            node_cleanup::spawn_gc,
            states::MonitorState,
            wait::{exit_by_signal, poll_all},
        },
    },
};

/// How many requests of one client are handled in a turn.
const REQUESTS: usize = 32;

/// How long clients wait at the listener after there was no descriptor for one of them. Nothing
/// reports that the limit was raised, or that another process has closed a file.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The owner of a descriptor that is ready. Clients and processes are named by number, since
/// handling one event may remove others from the lists.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Connection(u64),
    StartSocket(u64),
    Stdio(u64, RawFd),
    Freezer,
    Oom,
    Hooks,
    Stray,
}

impl Monitor {
    /// Serves clients until nothing is left to do. Returns the exit code.
    pub(crate) fn run(mut self) -> i32 {
        while !self.is_done() {
            self.run_once();
        }
        self.final_exit_code()
    }

    /// Whether the exit is told by the monitor's own, and not by that of a client which stands for init. That may
    /// ask for it only now.
    fn ends_for_init(&self) -> bool {
        let init = &self.processes[0];
        let is_stand_in =
            |client: &Connection| init.kill_on_disconnect && client.number == init.owner;
        self.options.propagate_exit && !self.connections.iter().any(is_stand_in)
    }

    fn is_done(&self) -> bool {
        // A client that does not read its answers may only delay the exit that it waits for itself.
        let answered = |number| {
            !self
                .connections
                .iter()
                .any(|client| client.number == number && client.has_answers())
        };
        let finished = || {
            self.processes
                .iter()
                .all(|process| process.stdio.is_finished())
        };
        match self.state {
            MonitorState::Live | MonitorState::Stopping(_) => false,
            MonitorState::Aborted => answered(STARTER) && self.hook_run.is_none(),
            MonitorState::Stopped(_) => match self.deleted_for {
                // Loggers get the time to finish. All other streams close with the monitor.
                Some(client) => {
                    answered(client)
                        && self
                            .processes
                            .iter()
                            .all(|process| process.stdio.helpers().is_empty())
                }
                // An exit that is not recorded is known here alone.
                None => {
                    let is_known = self.connections.is_empty()
                        && self.record_again.is_none()
                        && self.hook_run.is_none();
                    finished() && (self.ends_for_init() || is_known)
                }
            },
        }
    }

    fn run_once(&mut self) {
        let ready = self.poll();
        // First of all, see the module's documentation.
        for &(source, _) in &ready {
            if let Source::StartSocket(number) = source {
                self.start_socket_ready(number);
            }
        }
        for &(source, events) in &ready {
            match source {
                Source::StartSocket(_) => {}
                Source::Signals => self.signals_ready(),
                Source::Listener => self.accept(),
                Source::Connection(number) => self.connection_ready(number, events),
                Source::Stdio(number, fd) => self.stdio_ready(number, fd, events),
                Source::Freezer => self.freezer_ready(),
                Source::Oom => self.oom_ready(),
                Source::Hooks => self.hooks_ready(),
                Source::Stray => {
                    self.note_end();
                    self.reap_remaining();
                }
            }
        }
        self.deadlines();
        self.drop_disconnected();
    }

    /// Waits for the next event or deadline.
    fn poll(&self) -> Vec<(Source, PollFlags)> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.accept_again.is_none() {
            sources.push(Source::Listener);
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        for connection in &self.connections {
            let (fd, flags) = connection.interest();
            sources.push(Source::Connection(connection.number));
            fds.push(PollFd::new(fd, flags));
        }
        let mut wanted = Vec::new();
        for process in &self.processes {
            if let Some(start_socket) = &process.start_socket {
                sources.push(Source::StartSocket(process.number));
                fds.push(PollFd::new(start_socket.as_fd(), PollFlags::POLLIN));
            }
            process.stdio.interests(&mut wanted);
            for (fd, flags) in wanted.drain(..) {
                sources.push(Source::Stdio(process.number, fd.as_raw_fd()));
                fds.push(PollFd::new(fd, flags));
            }
        }
        if let Some(events) = self.freezing.as_ref().and_then(Freezing::events) {
            sources.push(Source::Freezer);
            fds.push(PollFd::new(events, PollFlags::POLLPRI));
        }
        if let Some(notifier) = &self.oom.notifier {
            let (fd, flags) = notifier.interest();
            sources.push(Source::Oom);
            fds.push(PollFd::new(fd, flags));
        }
        if let Some(hooks) = &self.hook_run {
            sources.push(Source::Hooks);
            fds.push(PollFd::new(hooks.runner.socket(), PollFlags::POLLIN));
        }
        if let Some(stray) = &self.stray {
            sources.push(Source::Stray);
            fds.push(PollFd::new(stray.as_fd(), PollFlags::POLLIN));
        }
        // After an interruption the next turn polls again.
        if poll_all(&mut fds, self.timeout()).is_err() {
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
        let stopping = match &self.state {
            MonitorState::Stopping(stopping) => Some(stopping.deadline.at()),
            _ => None,
        };
        let freezing = self.freezing.as_ref().map(|freezing| freezing.deadline());
        let again = [
            self.accept_again,
            self.record_again,
            self.kill_deadline.map(|deadline| deadline.at()),
            self.oom.deadline(),
        ];
        let again = again.into_iter().flatten();
        match stdio.chain(stopping).chain(freezing).chain(again).min() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up: with 0 ms left of a part of one, poll(2) would return at once.
                let milliseconds = left.as_micros().div_ceil(1000);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn deadlines(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for process in &mut self.processes {
            if process
                .stdio
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                process.stdio.timeout();
                late.push(process.number);
            }
        }
        for number in late {
            self.finish_creation(number);
        }
        self.kill_deadline(now);
        self.stop_deadline(now);
        self.freezing_deadline(now);
        self.oom_deadline(now);
        if self.accept_again.is_some_and(|again| again <= now) {
            self.accept_again = None;
        }
        if self.record_again.is_some_and(|again| again <= now) {
            self.record_exit();
        }
    }

    fn accept(&mut self) {
        loop {
            match channel::accept(self.listener.as_fd()) {
                Ok(Some(socket)) => {
                    self.connections
                        .push(Connection::new(self.next_connection, socket));
                    self.next_connection += 1;
                }
                Ok(None) => return,
                // The client stays in the backlog, so polling the listener would be a busy loop.
                Err(_) => {
                    self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn connection_ready(&mut self, number: u64, events: PollFlags) {
        if let Some(connection) = self.connection(number) {
            connection.ready(events);
        }
        for _ in 0..REQUESTS {
            let message = self.connection(number).and_then(Connection::receive);
            let Some(message) = message else { return };
            self.answer(number, message);
        }
    }

    fn stdio_ready(&mut self, number: u64, fd: RawFd, events: PollFlags) {
        if let Some(index) = self.index_of_number(number) {
            self.processes[index].stdio.ready(fd, events);
            self.finish_creation(number);
        }
    }

    /// Drops clients that have disconnected, and processes whose exit only they could ask for.
    fn drop_disconnected(&mut self) {
        let (closed, open): (Vec<_>, Vec<_>) =
            self.connections.drain(..).partition(Connection::is_closed);
        self.connections = open;
        if !closed.is_empty() {
            self.accept_again = None;
        }
        for connection in &closed {
            self.client_disconnected(connection.number);
        }
        let connections = &self.connections;
        let connected = |number| connections.iter().any(|open| open.number == number);
        let mut index = 0;
        while index < self.processes.len() {
            if self.processes[index].is_over(connected) {
                self.processes.remove(index);
                self.accept_again = None;
            } else {
                index += 1;
            }
        }
    }

    /// The exit code of the monitor: with `propagate_exit` that of init, so that an engine that
    /// waits for the monitor gets it. If init was ended by a signal, the monitor ends by it too.
    fn final_exit_code(self) -> i32 {
        let MonitorState::Stopped(exit) = &self.state else {
            return 1;
        };
        if self.deleted_for.is_some() {
            spawn_gc(
                &*self.config.isolation,
                &self.view_request,
                self.oom_score_adj,
                self.options.log.as_deref(),
            );
        }
        if !self.options.propagate_exit {
            return 0;
        }
        if let ExitStatus::Signaled { signal, .. } = exit.status {
            exit_by_signal(signal);
        }
        i32::try_from(exit.status.code()).unwrap_or(1)
    }
}
