//! The executor that runs processes on the host.

mod children;
mod link;
mod lost;
mod spawn;

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use reaper_spec::{ConsoleSize, ContainerId, ExecId, Exit, Status};
use reaper_state::RootDir;

use self::{
    children::Children,
    link::{Gone, Link},
};
use crate::{
    CreateRequest, Created, Error, ExecRequest, Executor, Observation, ProcessEntry, Result,
    Signal, Stats, Target, channel,
    io::{Attachments, StdioRequest, Streams},
    protocol::{Answer, Attached, Call, CreateCall, ExecCall},
};

/// How long a container may take to be made: a mount of a file server that does not answer must
/// not hold up its pod for ever.
const CREATION: Duration = Duration::from_secs(60);

/// How long a monitor may take to leave after the deletion: its loggers are given some time.
const FAREWELL: Duration = Duration::from_secs(20);

/// Descriptors in one message, less those of the streams, the console socket, and the message
/// itself where it is large.
const MAX_PRESERVED: usize = channel::MAX_DESCRIPTORS - 5;

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

    /// Starts a container as [`Executor::start`] does, but with `streams` instead of those that
    /// it was created with.
    ///
    /// # Errors
    /// As [`Executor::start`].
    pub async fn start_with_streams(&self, id: &ContainerId, streams: [OwnedFd; 3]) -> Result<()> {
        let target = Target::Init(id.clone());
        let streams = streams.each_ref().map(AsFd::as_fd);
        self.call_done(&target, &Call::Start { exec: None }, &streams)
            .await
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

/// Separates what is data from what is descriptors.
fn pack(stdio: StdioRequest, preserved: Vec<OwnedFd>) -> Result<(Streams, Attached, Vec<OwnedFd>)> {
    if preserved.len() > MAX_PRESERVED {
        return Err(Error::Setup {
            step: format!("preserve {} descriptors", preserved.len()),
            message: format!("{MAX_PRESERVED} is the most that can be handed over"),
            errno: Some(libc::E2BIG),
        });
    }
    let StdioRequest {
        streams,
        attachments: Attachments {
            inherited,
            console_socket,
        },
    } = stdio;
    let attached = Attached {
        inherited: inherited.each_ref().map(Option::is_some),
        console_socket: console_socket.is_some(),
        preserved: u32::try_from(preserved.len()).unwrap_or(u32::MAX),
    };
    let descriptors = inherited
        .into_iter()
        .flatten()
        .chain(console_socket)
        .chain(preserved);
    Ok((streams, attached, descriptors.collect()))
}

#[async_trait]
impl Executor for HostExecutor {
    async fn create(&self, request: CreateRequest) -> Result<Created> {
        let target = Target::Init(request.id.clone());
        let (streams, attached, descriptors) = pack(request.stdio, request.preserved)?;
        let call = Call::Create(Box::new(CreateCall {
            id: request.id.clone(),
            namespace: self.namespace.clone(),
            dir: request.dir.path().to_owned(),
            process: request.process,
            cgroups_path: request.cgroups_path,
            view: request.view,
            streams,
            attached,
            options: request.monitor,
        }));
        self.make_room(&request.id).await?;
        let link = Arc::new(self.spawn_monitor(&target)?);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let answer = tokio::time::timeout(CREATION, link.call(&call, &descriptors)).await;
        let reason = match answer {
            Ok(Ok(Ok(Answer::Created(created)))) => {
                self.links().insert(request.id, link);
                return Ok(created);
            }
            Ok(Ok(Ok(_))) => return Err(nonsense(&target)),
            Ok(Ok(Err(failure))) => {
                link.ended(lost::DEATH).await;
                return Err(failure.into_error(&target));
            }
            Ok(Err(Gone::Send(error))) => format!("cannot be asked: {error}"),
            Ok(Err(Gone::Closed)) => spawn::NO_ANSWER.to_owned(),
            Err(_) => format!("did not make the container within {} s", CREATION.as_secs()),
        };
        link.kill();
        link.ended(lost::DEATH).await;
        match self.settle_for_good(&request.id).await {
            Ok(_) | Err(Error::NotFound(_)) => Err(Error::Monitor { target, reason }),
            // Its plan stays, so that the next container of this id finds it.
            Err(error) => {
                let reason = format!("{reason}; then: {error}");
                Err(Error::Monitor { target, reason })
            }
        }
    }

    async fn exec(&self, id: &ContainerId, exec: &ExecId, request: ExecRequest) -> Result<Created> {
        let target = Target::Exec(id.clone(), exec.clone());
        let (streams, attached, descriptors) = pack(request.stdio, request.preserved)?;
        let call = Call::Exec(Box::new(ExecCall {
            exec: exec.clone(),
            process: request.process,
            streams,
            attached,
            tied: request.tied,
        }));
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let Ok(answer) =
            tokio::time::timeout(CREATION, self.call(&target, &call, &descriptors)).await
        else {
            // It hangs in some system call; nobody could name it afterwards.
            let _ = self.kill(&target, Signal::KILL, true).await;
            let reason = format!("did not make it within {} s", CREATION.as_secs());
            return Err(Error::Monitor { target, reason });
        };
        match answer {
            Ok(Some(Answer::Created(created))) => Ok(created),
            Ok(Some(_)) => Err(nonsense(&target)),
            Ok(None) => match self.without_monitor(&Target::Init(id.clone())).await {
                Error::Ended(target) => {
                    let operation = "exec in".to_owned();
                    Err(Error::Status {
                        operation,
                        target,
                        status: Status::Stopped,
                    })
                }
                error => Err(error),
            },
            // The container is in a wrong status, not the exec.
            Err(Error::Status {
                operation, status, ..
            }) => Err(Error::Status {
                operation,
                target: Target::Init(id.clone()),
                status,
            }),
            Err(error) => Err(error),
        }
    }

    async fn start(&self, target: &Target) -> Result<()> {
        let call = Call::Start {
            exec: target.exec_id().cloned(),
        };
        self.call_done(target, &call, &[]).await
    }

    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        let call = Call::Kill {
            exec: target.exec_id().cloned(),
            signal,
            all,
        };
        match self.call_done(target, &call, &[]).await {
            // Its maker may be gone, and its monitor hang.
            Err(Error::Status {
                status: Status::Creating,
                ..
            }) if all && signal == Signal::KILL => self.interrupt(target.container()).await,
            killed => killed,
        }
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        let call = Call::Wait {
            exec: target.exec_id().cloned(),
        };
        match self.call(target, &call, &[]).await? {
            Some(Answer::Exit(exit)) => Ok(exit),
            Some(_) => Err(nonsense(target)),
            None => {
                let settled = self.settle(target.container()).await?;
                match (settled.exit, target) {
                    (Some(exit), Target::Init(_)) => Ok(exit),
                    // Its monitor alone knew how it ended.
                    (Some(exit), Target::Exec(..)) => Ok(lost::exec_exit(exit.at)),
                    (None, _) => Err(unreachable_yet(target.container(), settled.status)),
                }
            }
        }
    }

    async fn resize(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        let call = Call::Resize {
            exec: target.exec_id().cloned(),
            size,
        };
        self.call_done(target, &call, &[]).await
    }

    async fn close_stdin(&self, target: &Target) -> Result<()> {
        let call = Call::CloseStdin {
            exec: target.exec_id().cloned(),
        };
        self.call_done(target, &call, &[]).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.call_done(&Target::Init(id.clone()), &Call::Pause, &[])
            .await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.call_done(&Target::Init(id.clone()), &Call::Resume, &[])
            .await
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessEntry>> {
        let target = Target::Init(id.clone());
        match self.call(&target, &Call::Pids, &[]).await? {
            Some(Answer::Pids(pids)) => Ok(pids),
            Some(_) => Err(nonsense(&target)),
            None => self.settle(id).await.map(|_| Vec::new()),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let target = Target::Init(id.clone());
        match self.call(&target, &Call::Stats, &[]).await? {
            Some(Answer::Stats(stats)) => Ok(stats),
            Some(_) => Err(nonsense(&target)),
            None => self.settle(id).await.map(|_| Stats::default()),
        }
    }

    async fn observe(&self, id: &ContainerId) -> Result<Observation> {
        let target = Target::Init(id.clone());
        match self.call(&target, &Call::Observe, &[]).await? {
            Some(Answer::Observed(observation)) => Ok(observation),
            Some(_) => Err(nonsense(&target)),
            None => self.settle(id).await,
        }
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        let call = Call::Delete {
            exec: target.exec_id().cloned(),
        };
        let link = self.link(target.container())?;
        let exit = match self.call(target, &call, &[]).await {
            Ok(Some(Answer::Deleted(exit))) => exit,
            Ok(Some(_)) => return Err(nonsense(target)),
            // With its monitor the exec is gone.
            Ok(None) if target.exec_id().is_some() => None,
            Ok(None) => match self.settle_for_good(target.container()).await {
                Ok(Observation {
                    exit: None, status, ..
                }) => {
                    return Err(Error::Status {
                        operation: "delete".to_owned(),
                        target: target.clone(),
                        status,
                    });
                }
                Ok(settled) => settled.exit,
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error),
            },
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        if let Target::Init(id) = target {
            self.links().remove(id);
            if let Some(link) = link {
                link.ended(FAREWELL).await;
            }
            // A store may keep its record there; whoever is last removes the folder.
            let _ = fs::remove_dir(self.root.container(id).path());
        }
        Ok(exit)
    }
}
