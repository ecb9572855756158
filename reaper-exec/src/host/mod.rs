//! The executor that runs processes on the host.

mod calls;
mod children;
mod failure;
mod link;
mod lost;
mod spawn;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use reaper_spec::{ContainerId, ProcessIdentity, Status};
use reaper_state::RootDir;

use self::{
    children::Children,
    link::{Gone, Link},
};
use crate::{
    executor::{Error, Result, Target},
    protocol::{Answer, Call},
};

/// Runs processes on the host, each container below a monitor of its own.
///
/// The executor itself only exchanges messages with monitors, so nothing that can block, a mount,
/// the fsync of a slow disk, runs on the caller's thread. It must be used within a Tokio runtime
/// with I/O and time enabled. Any number of executors, in any number of processes, may work on
/// one root at the same time.
///
/// The monitor is this program executed again, see [`monitor::run_if_asked`], unless another
/// program was named.
///
/// [`monitor::run_if_asked`]: crate::monitor::run_if_asked
#[derive(Debug)]
pub struct HostExecutor {
    root: RootDir,
    namespace: String,
    program: PathBuf,
    subreaper: bool,
    children: Children,
    links: Mutex<HashMap<ContainerId, Arc<Link>>>,
}

impl HostExecutor {
    /// Containers below `root`.
    pub fn new(root: RootDir) -> Self {
        Self {
            root,
            namespace: String::new(),
            program: PathBuf::from("/proc/self/exe"),
            subreaper: false,
            children: Children::default(),
            links: Mutex::default(),
        }
    }

    /// The containerd namespace that loggers are told.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The program that becomes the monitor. It must call
    /// [`monitor::run_if_asked`](crate::monitor::run_if_asked) in its `main`.
    #[must_use]
    pub fn monitor_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Whether this process is a child subreaper (prctl(2)) that has no other children than
    /// monitors: what a killed monitor leaves behind then becomes its child, and is killed.
    #[must_use]
    pub fn is_subreaper(mut self, subreaper: bool) -> Self {
        self.subreaper = subreaper;
        self
    }

    /// Starts a container as [`Executor::start`](crate::Executor::start) does, but with `streams` instead of those that
    /// it was created with.
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
        match self.call(target, &Call::Start { exec }, streams).await? {
            Some(Answer::Started(process)) => Ok(process),
            Some(_) => Err(nonsense(target)),
            None => Err(self.without_monitor(target).await),
        }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Link>>> {
        // The map is whole after any panic: each change of it is one call.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a container's monitor, made if need be; `None` if no monitor answers.
    fn link(&self, id: &ContainerId) -> Result<Option<Arc<Link>>> {
        let mut links = self.links();
        if let Some(link) = links.get(id).filter(|link| link.is_alive()) {
            return Ok(Some(Arc::clone(link)));
        }
        match Link::connect(&self.root.container(id).socket()) {
            Ok(link) => {
                let link = Arc::new(link);
                links.insert(id.clone(), Arc::clone(&link));
                Ok(Some(link))
            }
            // It is there, and busy.
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => Err(Error::Io {
                operation: format!("connect to the monitor of container {id}"),
                source,
            }),
            // Refused or missing: whatever the reason, nobody answers here.
            Err(_) => {
                links.remove(id);
                Ok(None)
            }
        }
    }

    /// Calls the monitor of `target`. Without one, `Ok(None)`: it has ended, or never was.
    async fn call(
        &self,
        target: &Target,
        call: &Call,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Option<Answer>> {
        let Some(link) = self.link(target.container())? else {
            return Ok(None);
        };
        match link.call(call, descriptors).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(failure)) => Err(failure.into_error(target)),
            Err(Gone::Closed) => Ok(None),
            Err(Gone::Send(source)) => Err(Error::Io {
                operation: format!("call the monitor of {target}"),
                source,
            }),
        }
    }

    /// Calls for nothing but success; a process without a monitor has ended.
    async fn call_done(
        &self,
        target: &Target,
        call: &Call,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<()> {
        match self.call(target, call, descriptors).await? {
            Some(Answer::Done) => Ok(()),
            Some(_) => Err(nonsense(target)),
            None => Err(self.without_monitor(target).await),
        }
    }

    /// Why there is no monitor: the container has ended, it never was, or it is being made.
    async fn without_monitor(&self, target: &Target) -> Error {
        match self.settle(target.container()).await {
            Ok(seen) if seen.exit.is_some() => Error::Ended(target.clone()),
            Ok(seen) => unreachable_yet(target.container(), seen.status),
            Err(error) => error,
        }
    }

    /// Takes a stale folder for what it is: an id may be used again when its container is gone,
    /// even if whoever should have deleted it was killed.
    async fn make_room(&self, id: &ContainerId) -> Result<()> {
        if !self.root.container(id).plan_file().exists() {
            return Ok(());
        }
        if self.link(id)?.is_some() {
            return Err(Error::AlreadyExists(Target::Init(id.clone())));
        }
        match self.settle_for_good(id).await {
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

fn nonsense(target: &Target) -> Error {
    Error::Monitor {
        target: target.clone(),
        reason: "it answered something else".to_owned(),
    }
}
