//! The operations of the executor: each is a request to the container's monitor.
//!
//! All requests to one monitor share a connection. Requests have no deadline, since a wait may last
//! for ever, except for those that a hung mount could hold up: 60 s for creating, 20 s for the
//! monitor's exit after a deletion.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use reaper_overlay::ViewRequest;
use reaper_spec::{ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity, Status};

use super::{
    HostExecutor, client::ClientError, recovery, runtime, spawn, unexpected_answer, unreachable_yet,
};
use crate::{
    channel,
    executor::{
        ContainerState, CreateRequest, CreatedProcess, Error, ExecRequest, Executor, ProcessInfo,
        Result, Stats, Target,
    },
    io::{StdioFds, StdioRequest, Streams},
    protocol::{Attached, CreateContainer, ExecProcess, Request, Response, RuntimeConfig},
    signal::Signal,
};

/// How long creating may take. A mount of a file server that does not answer must not hold up a pod
/// for ever.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a monitor may take to exit after the deletion. Its loggers get some time.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// Descriptors in one message, less those of the streams, the console socket, and the message
/// itself where it is large.
const MAX_PRESERVED: usize = channel::MAX_DESCRIPTORS - 5;

/// Separates data from descriptors, which travel beside a message.
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
        attachments: StdioFds {
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

impl HostExecutor {
    /// Makes a container, by an OCI runtime if there is one.
    async fn make(&self, request: CreateRequest) -> Result<CreatedProcess> {
        let CreateRequest { dir, container } = request;
        let runtime = match &container.runtime {
            Some(runtime) => Some(RuntimeConfig {
                program: runtime::program(runtime)?,
                bundle: container.bundle,
            }),
            None => None,
        };
        let target = Target::Init(container.id.clone());
        let (streams, attached, descriptors) = pack(container.stdio, container.preserve_fds)?;
        let call = Request::Create(Box::new(CreateContainer {
            id: container.id.clone(),
            namespace: self.namespace.clone(),
            dir: dir.path().to_owned(),
            process: container.process,
            cgroups_path: container.cgroups_path,
            view: container.view,
            streams,
            attached,
            options: container.monitor,
            runtime,
        }));
        self.remove_stale(&container.id).await?;
        let client = Arc::new(self.spawn_monitor(&target)?);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let answer = tokio::time::timeout(CREATE_TIMEOUT, client.call(&call, &descriptors)).await;
        let reason = match answer {
            Ok(Ok(Ok(Response::Created(created)))) => {
                self.clients().insert(container.id, client);
                return Ok(created);
            }
            Ok(Ok(Ok(_))) => return Err(unexpected_answer(&target)),
            Ok(Ok(Err(failure))) => {
                client.ended(recovery::KILL_TIMEOUT).await;
                return Err(failure.into_error(&target));
            }
            Ok(Err(ClientError::Send(error))) => format!("cannot be asked: {error}"),
            Ok(Err(ClientError::Closed)) => spawn::NO_ANSWER.to_owned(),
            Err(_) => format!(
                "did not make the container within {} s",
                CREATE_TIMEOUT.as_secs()
            ),
        };
        client.kill();
        client.ended(recovery::KILL_TIMEOUT).await;
        match self.recover_and_remove(&container.id).await {
            Ok(_) | Err(Error::NotFound(_)) => Err(Error::Monitor { target, reason }),
            // plan.json stays, so that creating the next container of this id cleans up.
            Err(error) => {
                let reason = format!("{reason}; then: {error}");
                Err(Error::Monitor { target, reason })
            }
        }
    }
}

#[async_trait]
impl Executor for HostExecutor {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        self.make(request).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        let target = Target::Exec(id.clone(), exec.clone());
        let (streams, attached, descriptors) = pack(request.stdio, request.preserve_fds)?;
        let call = Request::Exec(Box::new(ExecProcess {
            exec: exec.clone(),
            process: request.process,
            process_json: request.process_json,
            streams,
            attached,
            kill_on_disconnect: request.kill_on_disconnect,
        }));
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let Ok(answer) =
            tokio::time::timeout(CREATE_TIMEOUT, self.call(&target, &call, &descriptors)).await
        else {
            // It hangs in a system call. Without the answer no client could name it later.
            let _ = self.kill(&target, Signal::KILL, true).await;
            let reason = format!("did not make it within {} s", CREATE_TIMEOUT.as_secs());
            return Err(Error::Monitor { target, reason });
        };
        match answer {
            Ok(Some(Response::Created(created))) => Ok(created),
            Ok(Some(_)) => Err(unexpected_answer(&target)),
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

    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        self.start_with(target, &[]).await
    }

    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        let call = Request::Kill {
            exec: target.exec_id().cloned(),
            signal,
            all,
            group: false,
        };
        match self.call_done(target, &call, &[]).await {
            // Its creator may have died, and its monitor may hang.
            Err(Error::Status {
                status: Status::Creating,
                ..
            }) if all && signal == Signal::KILL => self.kill_creation(target.container()).await,
            killed => killed,
        }
    }

    async fn kill_group(&self, target: &Target, signal: Signal) -> Result<()> {
        let call = Request::Kill {
            exec: target.exec_id().cloned(),
            signal,
            all: false,
            group: true,
        };
        self.call_done(target, &call, &[]).await
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        let call = Request::Wait {
            exec: target.exec_id().cloned(),
        };
        match self.call(target, &call, &[]).await? {
            Some(Response::Exit(exit)) => Ok(exit),
            Some(_) => Err(unexpected_answer(target)),
            None => {
                let recovered = self.recover_exit(target.container()).await?;
                match (recovered.exit, target) {
                    (Some(exit), Target::Init(_)) => Ok(exit),
                    // Only the monitor knew its exit.
                    (Some(exit), Target::Exec(..)) => Ok(recovery::exec_exit(exit.at)),
                    (None, _) => Err(unreachable_yet(target.container(), recovered.status)),
                }
            }
        }
    }

    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        let call = Request::Resize {
            exec: target.exec_id().cloned(),
            size,
        };
        self.call_done(target, &call, &[]).await
    }

    async fn close_stdin(&self, target: &Target) -> Result<()> {
        let call = Request::CloseStdin {
            exec: target.exec_id().cloned(),
        };
        self.call_done(target, &call, &[]).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.call_done(&Target::Init(id.clone()), &Request::Pause, &[])
            .await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.call_done(&Target::Init(id.clone()), &Request::Resume, &[])
            .await
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        let target = Target::Init(id.clone());
        match self.call(&target, &Request::Pids, &[]).await? {
            Some(Response::Pids(pids)) => Ok(pids),
            Some(_) => Err(unexpected_answer(&target)),
            None => self.recover_exit(id).await.map(|_| Vec::new()),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let target = Target::Init(id.clone());
        match self.call(&target, &Request::Stats, &[]).await? {
            Some(Response::Stats(stats)) => Ok(stats),
            Some(_) => Err(unexpected_answer(&target)),
            None => self.recover_exit(id).await.map(|_| Stats::default()),
        }
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        let target = Target::Init(id.clone());
        match self.call(&target, &Request::State, &[]).await? {
            Some(Response::State(observation)) => Ok(observation),
            Some(_) => Err(unexpected_answer(&target)),
            None => self.recover_exit(id).await,
        }
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        let call = Request::Delete {
            exec: target.exec_id().cloned(),
        };
        let client = self.client(target.container())?;
        let exit = match self.call(target, &call, &[]).await {
            Ok(Some(Response::Deleted(exit))) => exit,
            Ok(Some(_)) => return Err(unexpected_answer(target)),
            // Without the monitor there is no exec.
            Ok(None) if target.exec_id().is_some() => None,
            Ok(None) => match self.recover_and_remove(target.container()).await {
                Ok(ContainerState {
                    exit: None, status, ..
                }) => {
                    return Err(Error::Status {
                        operation: "delete".to_owned(),
                        target: target.clone(),
                        status,
                    });
                }
                Ok(recovered) => recovered.exit,
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error),
            },
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        if let Target::Init(id) = target {
            self.clients().remove(id);
            if let Some(client) = client {
                client.ended(SHUTDOWN_TIMEOUT).await;
            }
            // This fails while a store keeps a record in the folder; the store then removes it.
            let _ = fs::remove_dir(self.root.container(id).path());
        }
        Ok(exit)
    }

    async fn remove_view(&self, view: &ViewRequest) -> Result<()> {
        let target = Target::Init(view.id.clone());
        let call = Request::RemoveView(Box::new(view.clone()));
        match self.run_helper(&target, &call, "remove the view").await? {
            Response::Done => Ok(()),
            _ => Err(unexpected_answer(&target)),
        }
    }
}
