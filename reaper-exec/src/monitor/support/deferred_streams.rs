//! Opening the streams of a process, now or when its terminal exists.
//!
//! An OCI runtime makes the terminal of a process itself, in the container's own devpts, so its
//! streams are opened after the runtime's command. All others are opened before the process is
//! made, since it gets an end of each.

use std::os::fd::OwnedFd;

use reaper_spec::{ConsoleSize, ContainerId, ProcessSpec};
use serde_json::Value;

use super::config::MonitorConfig;
use crate::{
    io::{BindRequest, BoundStdio, ChildStdio, NoStreams, StdioFds, StdioRequest, Streams},
    protocol::Failure,
};

/// What an exec'd process needs when a runtime makes it, which is when it is started.
pub(crate) struct DeferredExec {
    /// OCI's `process` object.
    pub(crate) document: Value,
    pub(crate) program: String,
    pub(crate) terminal: Option<PendingStreams>,
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

    /// Closes the input as soon as it is opened.
    pub(crate) fn close_stdin(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.stdin_closed = true;
        }
    }
}

/// The streams of a process, not opened yet.
pub(crate) struct PendingStreams {
    stdio: StdioRequest,
    terminal: bool,
    size: Option<ConsoleSize>,
    owner: Option<(u32, u32)>,
    stdin_closed: bool,
}

impl PendingStreams {
    pub(crate) fn new(process: &ProcessSpec, streams: Streams, attachments: StdioFds) -> Self {
        Self {
            stdio: StdioRequest {
                streams,
                attachments,
            },
            terminal: process.terminal,
            size: process.console_size,
            owner: process.user.as_ref().map(|user| (user.uid, user.gid)),
            stdin_closed: false,
        }
    }

    /// Opens them for a process that a runtime makes. With a terminal they are returned instead, to
    /// be opened when the runtime has made it.
    pub(crate) fn open(
        self,
        config: &MonitorConfig,
        id: &ContainerId,
        namespace: &str,
    ) -> Result<(Box<dyn BoundStdio>, Option<Self>), Failure> {
        if self.terminal {
            return Ok((Box::new(NoStreams), Some(self)));
        }
        Ok((self.bind(config, id, namespace, None)?, None))
    }

    /// Opens them, with the terminal's `master` if a runtime has made the terminal.
    pub(crate) fn bind(
        self,
        config: &MonitorConfig,
        id: &ContainerId,
        namespace: &str,
        master: Option<OwnedFd>,
    ) -> Result<Box<dyn BoundStdio>, Failure> {
        let bound = config.binder.bind(BindRequest {
            id,
            namespace,
            stdio: self.stdio,
            terminal: self.terminal.then_some(self.size),
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
pub(crate) fn take_child(stdio: &mut dyn BoundStdio) -> Option<[OwnedFd; 3]> {
    match stdio.take_child()? {
        ChildStdio::Streams(streams) => Some(streams),
        ChildStdio::Terminal(_) => None,
    }
}
