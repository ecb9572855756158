//! The executor that runs processes on the host.

mod calls;
mod children;
mod client;
mod connection;
mod failure;
mod recovery;
pub(crate) mod runtime;
mod silence;
mod spawn;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reaper_spec::{ContainerId, ProcessIdentity, Status};
use reaper_state::StateRoot;

pub use self::connection::MonitorConnection;
use self::{
    children::Children,
    client::{ClientError, MonitorClient},
};
use crate::{
    executor::{Error, Result, Target},
    procfs,
    protocol::{CleanupRecord, Request, Response},
};

/// Runs processes on the host, each container below a separate monitor.
///
/// The executor itself only exchanges messages with monitors, so nothing that can block, a mount,
/// the fsync of a slow disk, runs on the caller's thread. It must be used within a Tokio runtime
/// with I/O and time enabled. Any number of executors, in any number of processes, may work on
/// one root at the same time.
///
/// The monitor is this program executed again, see [`monitor::run_if_monitor`], unless another
/// program was named.
///
/// [`monitor::run_if_monitor`]: crate::monitor::run_if_monitor
#[derive(Debug)]
pub struct HostExecutor {
    root: StateRoot,
    namespace: String,
    program: PathBuf,
    subreaper: bool,
    children: Children,
    clients: Mutex<HashMap<ContainerId, Arc<MonitorClient>>>,
}

impl HostExecutor {
    /// Containers below `root`.
    pub fn new(root: StateRoot) -> Self {
        Self {
            root,
            namespace: String::new(),
            program: PathBuf::from(spawn::ITSELF),
            subreaper: false,
            children: Children::default(),
            clients: Mutex::default(),
        }
    }

    /// The containerd namespace, which loggers get as `CONTAINER_NAMESPACE`.
    #[must_use]
    pub fn containerd_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The program that becomes the monitor. It must call
    /// [`monitor::run_if_monitor`](crate::monitor::run_if_monitor) in its `main`.
    #[must_use]
    pub fn monitor_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Whether this process is a child subreaper (prctl(2)) that has no other children than
    /// monitors: what a killed monitor leaves behind then becomes its child, and is killed.
    #[must_use]
    pub fn subreaper(mut self, subreaper: bool) -> Self {
        self.subreaper = subreaper;
        self
    }

    /// Starts a container as [`Executor::start`](crate::Executor::start) does, but with `streams`
    /// instead of those that it was created with.
    ///
    /// # Errors
    /// As [`Executor::start`](crate::Executor::start).
    pub async fn start_with_streams(&self, id: &ContainerId, streams: [OwnedFd; 3]) -> Result<()> {
        let target = Target::Init(id.clone());
        let streams = streams.each_ref().map(AsFd::as_fd);
        self.start_with(&target, &streams).await.map(drop)
    }

    async fn start_with(
        &self,
        target: &Target,
        streams: &[BorrowedFd<'_>],
    ) -> Result<ProcessIdentity> {
        let exec = target.exec_id().cloned();
        let request = Request::Start { exec };
        match self
            .call(target, &request, streams, silence::ACTION)
            .await?
        {
            Some(Response::Started(process)) => Ok(process),
            Some(_) => Err(unexpected_answer(target)),
            None => Err(self.without_monitor(target).await),
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<MonitorClient>>> {
        // The map is whole after any panic: each change of it is one call.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a container's monitor, made if need be; `None` if there is no monitor.
    fn client(&self, id: &ContainerId) -> Result<Option<Arc<MonitorClient>>> {
        let mut clients = self.clients();
        if let Some(client) = clients.get(id).filter(|client| client.is_alive()) {
            return Ok(Some(Arc::clone(client)));
        }
        match MonitorClient::connect(&self.root.container(id).socket()) {
            Ok(client) => {
                let client = Arc::new(client);
                // Each keeps a descriptor, also those of containers that other programs have deleted.
                clients.retain(|_, client| client.is_alive());
                clients.insert(id.clone(), Arc::clone(&client));
                Ok(Some(client))
            }
            // It exists and accepts no client: its backlog is full.
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => {
                Err(self.unresponsive(&Target::Init(id.clone())))
            }
            // The socket refuses connections or does not exist: there is no monitor, unless something else is
            // in the socket's place.
            Err(_) => {
                clients.remove(id);
                match self.is_cut_off(id) {
                    true => Err(self.unresponsive(&Target::Init(id.clone()))),
                    false => Ok(None),
                }
            }
        }
    }

    /// Whether a monitor lives that no client can reach, since something else is in the place of its socket.
    fn is_cut_off(&self, id: &ContainerId) -> bool {
        let found = self.root.container(id).socket().symlink_metadata();
        let is_other = found.is_ok_and(|found| !found.file_type().is_socket());
        let lives = |plan: &CleanupRecord| {
            procfs::is_alive(&plan.monitor) && !procfs::is_killed(&plan.monitor)
        };
        is_other && matches!(self.plan(id), Ok(Some(plan)) if lives(&plan))
    }

    /// Calls the monitor of `target`. Without one, `Ok(None)`: it has ended, or never was. One that
    /// does not answer anything for `patience` is [`Error::Unresponsive`].
    async fn call(
        &self,
        target: &Target,
        call: &Request,
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<Option<Response>> {
        let id = target.container();
        let Some(client) = self.client(id)? else {
            return Ok(None);
        };
        let call = async {
            if !descriptors.is_empty() {
                // A monitor that does not read keeps what was sent to it open: the reader of the
                // caller's output would see no end of it.
                let _ = client.call(&Request::State, &[]).await?;
            }
            client.call(call, descriptors).await
        };
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            () = self.silence(id, &client, patience) => return Err(self.unresponsive(target)),
        };
        match answer {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(failure)) => Err(failure.into_error(target)),
            Err(ClientError::Closed) => Ok(None),
            Err(ClientError::Send(source)) => Err(not_sent(target, source)),
        }
    }

    /// Calls for nothing but success; a process without a monitor has ended.
    async fn call_done(&self, target: &Target, call: &Request, patience: Duration) -> Result<()> {
        match self.call(target, call, &[], patience).await? {
            Some(Response::Done) => Ok(()),
            Some(_) => Err(unexpected_answer(target)),
            None => Err(self.without_monitor(target).await),
        }
    }

    /// The error of a request to a container without a monitor: it has exited, does not exist, or
    /// is being created.
    async fn without_monitor(&self, target: &Target) -> Error {
        match self.recover_exit(target.container()).await {
            // One that could not be created has stopped without an exit.
            Ok(seen) if seen.status == Status::Stopped => Error::Ended(target.clone()),
            Ok(seen) => unreachable_yet(target.container(), seen.status),
            Err(error) => error,
        }
    }

    /// Removes what a container of this id left that has stopped but was not deleted, because the
    /// program that should have done that was killed.
    async fn remove_stale(&self, id: &ContainerId) -> Result<()> {
        if !self.root.container(id).cleanup_file().exists() {
            return Ok(());
        }
        if self.client(id)?.is_some() {
            return Err(Error::AlreadyExists(Target::Init(id.clone())));
        }
        match self.recover_and_remove(id).await {
            Ok(seen) if seen.exit.is_none() => Err(Error::AlreadyExists(Target::Init(id.clone()))),
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A container that lives, without a monitor that listens.
fn unreachable_yet(id: &ContainerId, status: Status) -> Error {
    Error::Status {
        operation: "reach".to_owned(),
        target: Target::Init(id.clone()),
        status,
    }
}

fn not_sent(target: &Target, source: io::Error) -> Error {
    Error::Io {
        operation: format!("call the monitor of {target}"),
        source,
    }
}

fn unexpected_answer(target: &Target) -> Error {
    Error::Monitor {
        target: target.clone(),
        reason: "it answered something else".to_owned(),
    }
}
