//! A connection to the monitor of one container, for a process that ends with it.

use std::sync::Arc;

use reaper_spec::{ContainerId, Exit};

use super::{
    HostExecutor,
    client::{ClientError, MonitorClient},
    unexpected_answer,
};
use crate::{
    executor::{Error, Result, Target},
    protocol::{Request, Response},
    signal::Signal,
};

/// A connection to the monitor of one container, whose init process is meant.
///
/// Unlike an executor it is made once, and where the monitor has ended it only says so: it reads
/// and changes no file, so it can be used by a process that has moved to other mounts.
#[derive(Debug)]
pub struct MonitorConnection {
    client: Arc<MonitorClient>,
    target: Target,
}

impl HostExecutor {
    /// Connects to the monitor of a container.
    ///
    /// # Errors
    /// [`Error::Monitor`] where none answers.
    pub fn connect(&self, id: &ContainerId) -> Result<MonitorConnection> {
        let target = Target::Init(id.clone());
        match self.client(id)? {
            Some(client) => Ok(MonitorConnection { client, target }),
            None => Err(ended(&target)),
        }
    }
}

impl MonitorConnection {
    /// Has the container killed when this connection closes, which it does with this program.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub async fn kill_on_disconnect(&self) -> Result<()> {
        self.done(&Request::KillOnDisconnect).await
    }

    /// Sends a signal to the init process.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::Monitor`].
    pub async fn kill(&self, signal: Signal) -> Result<()> {
        let call = Request::Kill {
            exec: None,
            signal,
            all: false,
            group: false,
        };
        self.done(&call).await
    }

    /// Waits for the end of the container.
    ///
    /// # Errors
    /// [`Error::Monitor`] where its monitor ends first.
    pub async fn wait(&self) -> Result<Exit> {
        match self.call(&Request::Wait { exec: None }).await? {
            Response::Exit(exit) => Ok(exit),
            _ => Err(unexpected_answer(&self.target)),
        }
    }

    async fn done(&self, call: &Request) -> Result<()> {
        match self.call(call).await? {
            Response::Done => Ok(()),
            _ => Err(unexpected_answer(&self.target)),
        }
    }

    async fn call(&self, call: &Request) -> Result<Response> {
        match self.client.call(call, &[]).await {
            Ok(answer) => answer.map_err(|failure| failure.into_error(&self.target)),
            Err(ClientError::Closed | ClientError::Send(_)) => Err(ended(&self.target)),
        }
    }
}

fn ended(target: &Target) -> Error {
    Error::Monitor {
        target: target.clone(),
        reason: "it has ended".to_owned(),
    }
}
