//! The streams of processes that a runtime makes.
//!
//! Without a terminal they are opened before the command, whose own they are. A terminal is made
//! by the runtime, in the container's own devpts, so its streams are opened after the command.

use std::os::fd::OwnedFd;

use reaper_spec::{ConsoleSize, ContainerId, ProcessSpec};
use serde_json::Value;

use super::setup::Setup;
use crate::{
    io::{Attachments, BindRequest, BoundStdio, ChildStdio, NoStreams, StdioRequest, Streams},
    protocol::Failure,
};

/// What an exec'd process needs when it is started: a runtime has no start_socket for it.
pub(crate) struct DeferredExec {
    pub(crate) document: Value,
    pub(crate) program: String,
    pub(crate) terminal: Option<PendingTerminal>,
}

impl DeferredExec {
    /// Changes the first size of the terminal.
    pub(crate) fn resize(&mut self, size: ConsoleSize) {
        if let Some(terminal) = &mut self.terminal {
            terminal.size = Some(size);
            self.document["consoleSize"] =
                serde_json::json!({ "width": size.width, "height": size.height });
        }
    }

    /// Ends the input when it is opened.
    pub(crate) fn close_stdin(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.stdin_closed = true;
        }
    }
}

/// The streams of a terminal that the runtime has not made yet.
pub(crate) struct PendingTerminal {
    stdio: StdioRequest,
    size: Option<ConsoleSize>,
    owner: Option<(u32, u32)>,
    stdin_closed: bool,
}

/// Opens the streams of a process, or says what is to be opened once there is a terminal.
pub(crate) fn open(
    setup: &Setup,
    id: &ContainerId,
    namespace: &str,
    process: &ProcessSpec,
    streams: Streams,
    attachments: Attachments,
) -> Result<(Box<dyn BoundStdio>, Option<PendingTerminal>), Failure> {
    let pending = PendingTerminal {
        stdio: StdioRequest {
            streams,
            attachments,
        },
        size: process.console_size,
        owner: process.user.as_ref().map(|user| (user.uid, user.gid)),
        stdin_closed: false,
    };
    if process.terminal {
        return Ok((Box::new(NoStreams), Some(pending)));
    }
    Ok((pending.bind(setup, id, namespace, None)?, None))
}

impl PendingTerminal {
    /// Opens them, with the terminal's master if there is one.
    pub(crate) fn bind(
        self,
        setup: &Setup,
        id: &ContainerId,
        namespace: &str,
        master: Option<OwnedFd>,
    ) -> Result<Box<dyn BoundStdio>, Failure> {
        let bound = setup.binder.bind(BindRequest {
            id,
            namespace,
            stdio: self.stdio,
            terminal: master.is_some().then_some(self.size),
            master,
            owner: self.owner,
        });
        let mut bound = bound.map_err(|error| Failure::from_error("open the streams", &error))?;
        if self.stdin_closed {
            bound.close_stdin();
        }
        Ok(bound)
    }
}

/// The process's ends of its streams, for a command.
pub(crate) fn take(stdio: &mut dyn BoundStdio) -> Option<[OwnedFd; 3]> {
    match stdio.take_child()? {
        ChildStdio::Streams(streams) => Some(streams),
        ChildStdio::Terminal(_) => None,
    }
}
