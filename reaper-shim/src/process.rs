//! One process, and the order of its events.
//!
//! The exit of a short process can be known before its start request is answered. containerd takes
//! an exit without a start for an error, so the exit is kept in `exit_before_start` until the start
//! is published. This is decided under one lock, which is never held across an await.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use containerd_shim_protos::{
    events::task::{TaskExecStarted, TaskExit, TaskStart},
    protobuf::MessageField,
};
use reaper_exec::{
    Target,
    io::{StdioRequest, StreamTarget, Streams},
};
use reaper_spec::{Exit, Status, Timestamp};
use tokio::sync::watch;

use crate::{Error, Event, Events, Result};

/// Where a process's streams go, as the request said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

impl Stdio {
    pub(crate) fn request(&self) -> StdioRequest {
        StdioRequest::new(
            Streams::new()
                .with_stdin(StreamTarget::from_uri(&self.stdin))
                .with_stdout(StreamTarget::from_uri(&self.stdout))
                .with_stderr(StreamTarget::from_uri(&self.stderr)),
        )
    }
}

/// A process that exists, or has ended and was not deleted.
///
/// Its start is published before its exit, whichever is known first, and its exit is published at
/// the moment from which on it reads as stopped. The lock is held for nothing but that order.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) target: Target,
    /// 0 where it is not known before the start.
    pid: AtomicU32,
    pub(crate) stdio: Stdio,
    lifecycle: Mutex<Lifecycle>,
    end: watch::Sender<Option<Exit>>,
}

#[derive(Debug, Default)]
struct Lifecycle {
    state: State,
    /// An end that was seen while the answer to the start is on its way.
    exit_before_start: Option<Exit>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Created,
    Starting,
    Started,
}

impl Process {
    pub(crate) fn new(target: Target, pid: u32, stdio: Stdio) -> Self {
        Self {
            target,
            pid: AtomicU32::new(pid),
            stdio,
            lifecycle: Mutex::default(),
            end: watch::Sender::new(None),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Takes the start for the caller, who says later how it went.
    pub(crate) fn begin_start(&self) -> Result<()> {
        let mut lifecycle = self.lifecycle();
        let status = match lifecycle.state {
            _ if self.exit().is_some() => Status::Stopped,
            State::Created => {
                lifecycle.state = State::Starting;
                return Ok(());
            }
            State::Starting | State::Started => Status::Running,
        };
        Err(Error::status("start", &self.target, status))
    }

    /// The program was executed, as `pid`.
    pub(crate) fn started(&self, pid: u32, events: &dyn Events) {
        let mut lifecycle = self.lifecycle();
        self.pid.store(pid, Ordering::Relaxed);
        lifecycle.state = State::Started;
        events.publish(self.start_event());
        if let Some(exit) = lifecycle.exit_before_start.take() {
            self.publish_exit(exit, events);
        }
    }

    /// The program was not executed.
    pub(crate) fn start_failed(&self, events: &dyn Events) {
        let mut lifecycle = self.lifecycle();
        lifecycle.state = State::Created;
        if let Some(exit) = lifecycle.exit_before_start.take() {
            self.publish_exit(exit, events);
        }
    }

    /// The process has ended.
    pub(crate) fn ended(&self, exit: Exit, events: &dyn Events) {
        let mut lifecycle = self.lifecycle();
        if lifecycle.state == State::Starting {
            lifecycle.exit_before_start = Some(exit);
        } else {
            self.publish_exit(exit, events);
        }
    }

    /// How it ended, once that is published.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.end.borrow().clone()
    }

    /// Waits until it has ended and that is published.
    pub(crate) async fn wait(&self) -> Exit {
        let mut end = self.end.subscribe();
        loop {
            if let Some(exit) = end.borrow_and_update().clone() {
                return exit;
            }
            // The sender is a field of this process, so it cannot be gone.
            let _ = end.changed().await;
        }
    }

    /// What it is doing as far as this shim knows; whether its container is paused, it doesn't.
    pub(crate) fn status(&self) -> Status {
        match self.lifecycle().state {
            _ if self.exit().is_some() => Status::Stopped,
            State::Created | State::Starting => Status::Created,
            State::Started => Status::Running,
        }
    }

    fn publish_exit(&self, exit: Exit, events: &dyn Events) {
        if self.exit().is_some() {
            return;
        }
        let id = match self.target.exec_id() {
            Some(exec) => exec.to_string(),
            None => self.target.container().to_string(),
        };
        let event = TaskExit {
            container_id: self.target.container().to_string(),
            id,
            pid: self.pid(),
            exit_status: exit.status.code(),
            exited_at: proto_time(exit.at),
            ..TaskExit::default()
        };
        self.end.send_replace(Some(exit));
        events.publish(Event::Exit(event));
    }

    fn start_event(&self) -> Event {
        let container_id = self.target.container().to_string();
        match self.target.exec_id() {
            Some(exec) => Event::ExecStarted(TaskExecStarted {
                container_id,
                exec_id: exec.to_string(),
                pid: self.pid(),
                ..TaskExecStarted::default()
            }),
            None => Event::Start(TaskStart {
                container_id,
                pid: self.pid(),
                ..TaskStart::default()
            }),
        }
    }

    fn lifecycle(&self) -> MutexGuard<'_, Lifecycle> {
        self.lifecycle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time as protobuf writes it.
pub(crate) fn proto_time(
    at: Timestamp,
) -> MessageField<containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp> {
    let since = at.since_epoch();
    MessageField::some(
        containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
            ..Default::default()
        },
    )
}
