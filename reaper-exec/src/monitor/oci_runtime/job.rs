//! Commands of the runtime that are under way.

use std::{ffi::OsString, path::PathBuf};

use nix::unistd::Pid;

use super::console::Console;
use crate::{
    monitor::support::{connection::ReplyTo, deferred_streams::PendingStreams},
    protocol::Failure,
    signal::Signal,
};

/// A command that has not exited.
pub(crate) struct Job {
    pub(crate) pid: Pid,
    pub(crate) log: PathBuf,
    pub(crate) task: Task,
}

/// What a command is for.
pub(crate) enum Task {
    Create(CreateOutputs),
    Exec {
        outputs: CreateOutputs,
        /// The number of the process.
        number: u64,
        to: ReplyTo,
        program: String,
        /// The file with OCI's `process` object, which is removed afterwards.
        file: PathBuf,
        /// Signals to send as soon as the process exists.
        signals: Vec<Signal>,
    },
    Start(ReplyTo),
    Kill {
        to: ReplyTo,
        signal: Signal,
    },
    Pause(ReplyTo),
    Resume(ReplyTo),
    Update {
        to: ReplyTo,
        /// The file with the limits, which is removed afterwards.
        file: PathBuf,
    },
    Remove,
}

/// What a command that creates a process leaves.
pub(crate) struct CreateOutputs {
    pub(crate) pid_file: PathBuf,
    pub(crate) terminal: Option<(Console, PendingStreams)>,
}

impl Task {
    pub(crate) fn creates_process(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Exec { .. })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Exec { .. } => "exec",
            Self::Start(_) => "start",
            Self::Kill { .. } => "kill",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Update { .. } => "update",
            Self::Remove => "delete",
        }
    }
}

impl CreateOutputs {
    /// A command's outputs: the pid in a file, and the terminal, if there is one, over a socket.
    pub(crate) fn new(
        pid_file: PathBuf,
        console: PathBuf,
        terminal: Option<PendingStreams>,
    ) -> Result<Self, Failure> {
        let terminal = match terminal {
            Some(pending) => {
                let console = Console::listen(console);
                let console =
                    console.map_err(|error| Failure::setup("listen for the terminal", &error))?;
                Some((console, pending))
            }
            None => None,
        };
        Ok(Self { pid_file, terminal })
    }

    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![OsString::from("--pid-file"), self.pid_file.clone().into()];
        if let Some((console, _)) = &self.terminal {
            let socket: PathBuf = console.argument();
            arguments.extend([OsString::from("--console-socket"), socket.into()]);
        }
        arguments
    }
}
