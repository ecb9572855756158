//! A connection to the monitor of one container, for a process that stands for one of the
//! container's and ends with it.

use std::sync::Arc;

use reaper_spec::{Exit, ProcessIdentity};

use super::{
    HostExecutor,
    client::{ClientError, MonitorClient},
    silence, unexpected_answer,
};
use crate::{
    executor::{Error, Result, Target},
    procfs,
    protocol::{Request, Response},
    signal::Signal,
};

/// A connection to the monitor of one container, for its init process or an exec'd one.
///
/// Unlike an executor it is made once, and where the monitor has ended it only says so: it reads
/// and changes no file, so it can be used by a process that has moved to other mounts.
#[derive(Debug)]
pub struct MonitorConnection {
    client: Arc<MonitorClient>,
    target: Target,
    monitor: Option<ProcessIdentity>,
}

impl HostExecutor {
    /// Connects to the monitor of a process.
    ///
    /// # Errors
    /// [`Error::Monitor`] where none answers.
    pub fn connect(&self, target: &Target) -> Result<MonitorConnection> {
        let id = target.container();
        let Some(client) = self.client(id)? else {
            return Err(ended(target));
        };
        Ok(MonitorConnection {
            client,
            target: target.clone(),
            monitor: self.plan(id).ok().flatten().map(|plan| plan.monitor),
        })
    }
}

impl MonitorConnection {
    /// Has the container killed when this connection closes, which it does with this program.
    ///
    /// # Errors
    /// [`Error::Monitor`], [`Error::Unresponsive`].
    pub async fn kill_on_disconnect(&self) -> Result<()> {
        self.done(&Request::KillOnDisconnect).await
    }

    /// Has the process execute its program.
    ///
    /// # Errors
    /// As [`Executor::start`](crate::Executor::start), and [`Error::Monitor`] where the monitor has
    /// ended.
    pub async fn start(&self) -> Result<ProcessIdentity> {
        let exec = self.target.exec_id().cloned();
        match self.answer(&Request::Start { exec }).await? {
            Response::Started(process) => Ok(process),
            _ => Err(unexpected_answer(&self.target)),
        }
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::Monitor`], [`Error::Unresponsive`].
    pub async fn kill(&self, signal: Signal) -> Result<()> {
        let call = Request::Kill {
            exec: self.target.exec_id().cloned(),
            signal,
            all: false,
            group: false,
        };
        self.done(&call).await
    }

    /// Waits for the end of the process, for as long as it takes.
    ///
    /// # Errors
    /// [`Error::Monitor`] where its monitor ends first.
    pub async fn wait(&self) -> Result<Exit> {
        let exec = self.target.exec_id().cloned();
        match self.call(&Request::Wait { exec }).await? {
            Response::Exit(exit) => Ok(exit),
            _ => Err(unexpected_answer(&self.target)),
        }
    }

    /// Forgets the process, which has ended.
    ///
    /// # Errors
    /// As [`Executor::delete`](crate::Executor::delete), and [`Error::Monitor`] where the monitor has
    /// ended.
    pub async fn delete(&self) -> Result<Option<Exit>> {
        let exec = self.target.exec_id().cloned();
        match self.answer(&Request::Delete { exec }).await? {
            Response::Deleted(exit) => Ok(exit),
            _ => Err(unexpected_answer(&self.target)),
        }
    }

    async fn done(&self, call: &Request) -> Result<()> {
        match self.answer(call).await? {
            Response::Done => Ok(()),
            _ => Err(unexpected_answer(&self.target)),
        }
    }

    /// The answer to what a monitor does at once, if it does anything.
    async fn answer(&self, call: &Request) -> Result<Response> {
        let monitor = self.monitor.as_ref();
        let is_stopped = || monitor.is_some_and(procfs::is_stopped);
        tokio::select! {
            biased;
            answer = self.call(call) => answer,
            () = silence::of(&self.client, silence::ACTION, is_stopped) => Err(Error::Unresponsive {
                target: self.target.clone(),
                monitor: monitor.map_or(0, |monitor| monitor.pid),
            }),
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
