//! The states of a container and of its processes, and every transition between them.
//!
//! [`CONTAINER`] and [`PROCESS`] are the whole truth: a state is changed by
//! [`MonitorState::enter`] and [`ProcessState::enter`] alone, which panic in debug builds on a
//! transition that is not listed. `docs/architecture.md` has the same tables; a test compares them.

use reaper_spec::{Exit, Status};

use super::{connection::ReplyTo, kill_deadline::KillDeadline};
use crate::protocol::Failure;

/// What a container is doing.
pub(crate) enum MonitorState {
    /// Init has not exited.
    Live,
    /// Init has exited, or could not be created. The remaining processes are being killed.
    Stopping(Stopping),
    /// All processes have exited, and the exit is recorded.
    Stopped(Exit),
    /// The container could not be created, and nothing of it is left.
    Aborted,
}

/// Why the remaining processes are being killed, and until when.
pub(crate) struct Stopping {
    pub(crate) cause: StopCause,
    /// The exit is published then, even if a process could not be killed.
    pub(crate) deadline: KillDeadline,
}

/// Why a container stops.
#[derive(Clone)]
pub(crate) enum StopCause {
    /// Init has exited.
    Exited(Exit),
    /// Init could not be created. The client gets the failure once nothing is left.
    CreateFailed(ReplyTo, Failure),
}

/// What a process is doing.
pub(crate) enum ProcessState {
    /// It is being set up. The client that asked for it is answered when that is done.
    Creating {
        reply_to: ReplyTo,
        /// The warnings of the child, once it waits for its start; its streams may not be ready.
        warnings: Option<Vec<String>>,
    },
    /// It waits for its start.
    Created,
    /// The start message was sent. The client that sent the request is answered after execve(2).
    Starting(ReplyTo),
    /// Its program was executed.
    Running,
    /// It has exited.
    Stopped(Exit),
    /// It could not be created, and its client has got the failure. No client can name it; it is
    /// only reaped.
    FailedToCreate,
}

impl MonitorState {
    /// Changes the state.
    pub(crate) fn enter(&mut self, next: Self) {
        check(&CONTAINER, self.name(), next.name());
        *self = next;
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stopping(_) => "stopping",
            Self::Stopped(_) => "stopped",
            Self::Aborted => "aborted",
        }
    }

    /// The status in OCI's terms that clients see, of a container whose init process is in the
    /// state `init`.
    ///
    /// A container that is stopping is reported as running: its exit is not published yet, and a
    /// client that read `stopped` could not get the exit.
    pub(crate) fn status(&self, init: &ProcessState, frozen: bool) -> Status {
        match self {
            Self::Stopped(_) | Self::Aborted => Status::Stopped,
            _ if frozen => Status::Paused,
            Self::Live => init.status(),
            Self::Stopping(_) => Status::Running,
        }
    }
}

impl ProcessState {
    /// Changes the state.
    pub(crate) fn enter(&mut self, next: Self) {
        check(&PROCESS, self.name(), next.name());
        *self = next;
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Creating { .. } => "creating",
            Self::Created => "created",
            Self::Starting(_) => "starting",
            Self::Running => "running",
            Self::Stopped(_) => "stopped",
            Self::FailedToCreate => "failed to create",
        }
    }

    /// The status in OCI's terms.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Creating { .. } => Status::Creating,
            Self::Created | Self::Starting(_) => Status::Created,
            Self::Running => Status::Running,
            Self::Stopped(_) | Self::FailedToCreate => Status::Stopped,
        }
    }
}

/// A row of a table: `from` becomes `to` when `event` happens.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    from: &'static str,
    event: &'static str,
    to: &'static str,
}

const fn row(from: &'static str, event: &'static str, to: &'static str) -> Row {
    Row { from, event, to }
}

/// The transitions of a container.
const CONTAINER: [Row; 5] = [
    row("live", "init exits", "stopping"),
    row("live", "creating init fails", "stopping"),
    row(
        "stopping",
        "another step of creating init fails",
        "stopping",
    ),
    row(
        "stopping",
        "all processes have exited, or the deadline has passed",
        "stopped",
    ),
    row(
        "stopping",
        "what a failed create left is removed",
        "aborted",
    ),
];

/// The transitions of a process.
const PROCESS: [Row; 9] = [
    row(
        "creating",
        "it waits for its start, and its streams are ready",
        "created",
    ),
    row("creating", "creating an exec fails", "failed to create"),
    row("creating", "it exits", "stopped"),
    row("created", "a client sends start", "starting"),
    row("created", "it exits", "stopped"),
    row("starting", "its program is executed", "running"),
    row(
        "starting",
        "it exits, or its program cannot be executed",
        "stopped",
    ),
    row("running", "it exits", "stopped"),
    row("failed to create", "it exits", "stopped"),
];

fn check(table: &[Row], from: &str, to: &str) {
    debug_assert!(
        table.iter().any(|row| row.from == from && row.to == to),
        "the transition from {from} to {to} is not in the table"
    );
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// The tables of the page whose header is `| from | event | to |`.
    fn documented() -> Vec<Vec<[String; 3]>> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/architecture.md");
        let page = std::fs::read_to_string(page).expect("the page");
        let cells = |line: &str| -> Option<[String; 3]> {
            let line = line.strip_prefix('|')?.strip_suffix('|')?;
            let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
            cells.try_into().ok()
        };
        let mut tables = Vec::new();
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if cells(line).is_some_and(|header| header == ["from", "event", "to"]) {
                let rows = lines.by_ref().skip(1).map_while(cells);
                tables.push(rows.collect());
            }
        }
        tables
    }

    fn listed(table: &[Row]) -> Vec<[String; 3]> {
        let cells = |row: &Row| [row.from, row.event, row.to].map(str::to_owned);
        table.iter().map(cells).collect()
    }

    #[test]
    fn docs_have_the_tables() {
        assert_eq!(documented(), [listed(&CONTAINER), listed(&PROCESS)]);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "the transition from created to running is not in the table"]
    fn transition_that_is_not_listed_is_refused() {
        ProcessState::Created.enter(ProcessState::Running);
    }

    #[test]
    fn stopping_container_is_reported_as_running() {
        let exit = Exit::new(
            reaper_spec::ExitStatus::Exited { code: 0 },
            reaper_spec::Timestamp::now(),
        );
        let init = ProcessState::Stopped(exit.clone());
        let stopping = MonitorState::Stopping(Stopping {
            cause: StopCause::Exited(exit.clone()),
            deadline: KillDeadline::new(Instant::now(), Duration::ZERO),
        });
        assert_eq!(stopping.status(&init, false), Status::Running);
        assert_eq!(stopping.status(&init, true), Status::Paused);
        let stopped = MonitorState::Stopped(exit);
        assert_eq!(stopped.status(&init, true), Status::Stopped);
    }
}
