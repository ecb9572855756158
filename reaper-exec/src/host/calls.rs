//! The operations of the executor: each is a request to the container's monitor.
//!
//! All requests to one monitor share a connection. A wait may last for ever. Any other request ends
//! when the monitor does not answer, see [`silence`]; creating, which a hung mount could hold up,
//! after 60 s, and the monitor's exit after a deletion is waited for 20 s.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use reaper_overlay::ViewRequest;
use reaper_spec::{
    ConsoleSize, ContainerId, ExecId, Exit, HookKind, ProcessIdentity, Resources, Status,
};

use super::{
    HostExecutor, client::ClientError, not_sent, recovery, runtime, silence, spawn,
    unexpected_answer, unreachable_yet,
};
use crate::{
    channel,
    executor::{
        ContainerState, CreateRequest, CreatedProcess, Error, ExecRequest, Executor, ProcessInfo,
        Result, Stats, Target,
    },
    hooks::total_limit,
    io::{StdioFds, StdioRequest, Streams},
    procfs,
    protocol::{
        Attached, CreateContainer, ExecProcess, HooksConfig, Request, Response, RuntimeConfig,
        SeccompConfig, UNKNOWN_REQUEST,
    },
    records::remove_staged_files,
    signal::Signal,
    sys,
};

/// How long creating may take, beside its hooks. A mount of a file server that does not answer must not hold up a pod
/// for ever.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);

/// The hooks that are run by a creation: the last ones where it fails.
const AT_CREATION: [HookKind; 4] = [
    HookKind::Prestart,
    HookKind::CreateRuntime,
    HookKind::CreateContainer,
    HookKind::Poststop,
];

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
    /// What the monitor is sent to create a container: the message, the descriptors that travel with it, and how long
    /// its answer may take.
    fn pack_create(
        &self,
        request: CreateRequest,
    ) -> Result<(CreateContainer, Vec<OwnedFd>, Duration)> {
        let CreateRequest { dir, container } = request;
        let runtime = match &container.runtime {
            Some(runtime) => Some(RuntimeConfig {
                program: runtime::program(runtime)?,
                bundle: container.bundle.clone(),
            }),
            None => None,
        };
        let annotations = &container.annotations;
        // A runtime reads the bundle.
        let seccomp = container.seccomp.filter(|_| runtime.is_none());
        let seccomp = seccomp.map(|spec| SeccompConfig {
            spec,
            bundle: container.bundle.clone(),
            annotations: annotations.clone(),
        });
        // So does it for these.
        let hooks = container.hooks;
        let hooks = (runtime.is_none() && !hooks.is_empty()).then(|| HooksConfig {
            hooks,
            bundle: container.bundle.clone(),
            annotations: annotations.clone(),
            log: container.monitor.log.clone(),
        });
        let mut view = container.view;
        view.own_mounts |= hooks
            .as_ref()
            .is_some_and(|hooks| !hooks.hooks.create_container.is_empty());
        let limit = CREATE_TIMEOUT
            + hooks.as_ref().map_or(Duration::ZERO, |hooks| {
                total_limit(&hooks.hooks, &AT_CREATION)
            });
        let (streams, attached, descriptors) = pack(container.stdio, container.preserve_fds)?;
        let call = CreateContainer {
            id: container.id,
            namespace: self.namespace.clone(),
            dir: dir.path().to_owned(),
            process: container.process,
            cgroups_path: container.cgroups_path,
            resources: container.resources,
            view,
            streams,
            attached,
            options: container.monitor,
            runtime,
            seccomp,
            hooks,
            namespaces: container.namespaces,
            new_pid_namespace: container.new_pid_namespace || container.holds_pids,
            holds_pids: container.holds_pids,
            sysctls: container.sysctls,
        };
        Ok((call, descriptors, limit))
    }
}

#[async_trait]
impl Executor for HostExecutor {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        let id = request.container.id.clone();
        let target = Target::Init(id.clone());
        let (call, descriptors, limit) = self.pack_create(request)?;
        let call = Request::Create(Box::new(call));
        self.remove_stale(&id).await?;
        let client = Arc::new(self.spawn_monitor(&target)?);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let answer = tokio::time::timeout(limit, client.call(&call, &descriptors)).await;
        let closed = matches!(answer, Ok(Err(ClientError::Closed)));
        let mut reason = match answer {
            Ok(Ok(Ok(Response::Created(created)))) => {
                self.clients().insert(id, client);
                return Ok(created);
            }
            Ok(Ok(Ok(_))) => return Err(unexpected_answer(&target)),
            Ok(Ok(Err(failure))) => {
                client.ended(recovery::KILL_TIMEOUT).await;
                return Err(failure.into_error(&target));
            }
            Ok(Err(ClientError::Send(error))) => format!("cannot be asked: {error}"),
            Ok(Err(ClientError::Closed)) => spawn::NO_ANSWER.to_owned(),
            Err(_) => format!("did not make the container within {} s", limit.as_secs()),
        };
        // One that closed the connection is exiting, and a signal does not change how (exit(2)).
        client.kill();
        client.ended(recovery::KILL_TIMEOUT).await;
        if closed && client.was_killed() {
            "was killed while it made the container".clone_into(&mut reason);
        }
        match self.recover_and_remove(&id).await {
            Ok(_) | Err(Error::NotFound(_)) => Err(Error::Monitor { target, reason }),
            // plan.json stays, so that creating the next container of this id cleans up.
            Err(error) => {
                let reason = format!("{reason}; then: {error}");
                Err(Error::Monitor { target, reason })
            }
        }
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
        let made = self.call(&target, &call, &descriptors, silence::ACTION);
        let Ok(answer) = tokio::time::timeout(CREATE_TIMEOUT, made).await else {
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
        if signal != Signal::KILL {
            return self.call_done(target, &call, silence::ACTION).await;
        }
        match self.call_done(target, &call, silence::KILL).await {
            // Its creator may have died, and its monitor may hang.
            Err(Error::Status {
                status: Status::Creating,
                ..
            }) if target.exec_id().is_none() => self.kill_creation(target.container()).await,
            Err(Error::Unresponsive { .. }) => self.kill_unanswered(target).await,
            killed => {
                let client = self.clients().get(target.container()).cloned();
                if let (Some(client), None) = (client, target.exec_id()) {
                    client.note_killed();
                }
                killed
            }
        }
    }

    async fn kill_group(&self, target: &Target, signal: Signal) -> Result<()> {
        let call = Request::Kill {
            exec: target.exec_id().cloned(),
            signal,
            all: false,
            group: true,
        };
        self.call_done(target, &call, silence::ACTION).await
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        let call = Request::Wait {
            exec: target.exec_id().cloned(),
        };
        let client = self.client(target.container())?;
        let answer = match &client {
            // Its monitor may fall silent before it has published the end.
            Some(client) if client.is_killed() => tokio::select! {
                biased;
                answer = client.call(&call, &[]) => answer,
                () = self.silence(target.container(), client, silence::ACTION) => {
                    self.kill_unanswered(&Target::Init(target.container().clone())).await?;
                    Err(ClientError::Closed)
                }
            },
            // A process may run for ever, and a monitor that is stopped may go on.
            Some(client) => client.call(&call, &[]).await,
            None => Err(ClientError::Closed),
        };
        match answer {
            Ok(Ok(Response::Exit(exit))) => Ok(exit),
            Ok(Ok(_)) => Err(unexpected_answer(target)),
            Ok(Err(failure)) => Err(failure.into_error(target)),
            Err(ClientError::Send(source)) => Err(not_sent(target, source)),
            Err(ClientError::Closed) => {
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

    async fn oom_kills(&self, id: &ContainerId, seen: u64) -> Result<u64> {
        let target = Target::Init(id.clone());
        let Some(client) = self.client(id)? else {
            return Err(Error::NotFound(target));
        };
        match client.call(&Request::OomKills { seen }, &[]).await {
            Ok(Ok(Response::OomKills(kills))) => Ok(kills),
            Ok(Ok(_)) => Err(unexpected_answer(&target)),
            Ok(Err(failure)) => Err(failure.into_error(&target)),
            Err(ClientError::Send(source)) => Err(not_sent(&target, source)),
            // The monitor has exited, and with it the count.
            Err(ClientError::Closed) => Err(Error::Ended(target)),
        }
    }

    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let target = Target::Init(id.clone());
        let request = Request::Update(Box::new(resources.clone()));
        match self.call_done(&target, &request, silence::ACTION).await {
            Err(Error::Monitor { reason, .. }) if reason.contains(UNKNOWN_REQUEST) => {
                Err(Error::Unsupported {
                    operation: "update".to_owned(),
                    reason: "its monitor is of an earlier version: it takes a new container"
                        .to_owned(),
                })
            }
            updated => updated,
        }
    }

    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        let call = Request::Resize {
            exec: target.exec_id().cloned(),
            size,
        };
        self.call_done(target, &call, silence::ACTION).await
    }

    async fn close_stdin(&self, target: &Target) -> Result<()> {
        let call = Request::CloseStdin {
            exec: target.exec_id().cloned(),
        };
        self.call_done(target, &call, silence::ACTION).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.call_done(&Target::Init(id.clone()), &Request::Pause, silence::ACTION)
            .await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.call_done(&Target::Init(id.clone()), &Request::Resume, silence::ACTION)
            .await
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        let target = Target::Init(id.clone());
        match self
            .call(&target, &Request::Pids, &[], silence::QUERY)
            .await
        {
            Ok(Some(Response::Pids(pids))) => Ok(pids),
            Ok(Some(_)) => Err(unexpected_answer(&target)),
            Err(Error::Unresponsive { .. }) => self.pids_unanswered(&target),
            Err(error) => Err(error),
            Ok(None) => self.recover_exit(id).await.map(|_| Vec::new()),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let target = Target::Init(id.clone());
        match self
            .call(&target, &Request::Stats, &[], silence::QUERY)
            .await
        {
            Ok(Some(Response::Stats(stats))) => Ok(stats),
            Ok(Some(_)) => Err(unexpected_answer(&target)),
            Err(Error::Unresponsive { .. }) => self.stats_unanswered(&target),
            Err(error) => Err(error),
            Ok(None) => self.recover_exit(id).await.map(|_| Stats::default()),
        }
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        let target = Target::Init(id.clone());
        match self
            .call(&target, &Request::State, &[], silence::QUERY)
            .await
        {
            Ok(Some(Response::State(observation))) => Ok(observation),
            Ok(Some(_)) => Err(unexpected_answer(&target)),
            // It may have recorded the exit before it fell silent.
            Err(error @ Error::Unresponsive { .. }) => match self.exit_record(id)? {
                Some(record) => Ok(ContainerState::stopped(record.exit)),
                None => Err(error),
            },
            Err(error) => Err(error),
            Ok(None) => self.recover_exit(id).await,
        }
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        let call = Request::Delete {
            exec: target.exec_id().cloned(),
        };
        let id = target.container();
        // Deleting an exec leaves the monitor.
        let (client, monitor) = match target {
            Target::Init(id) => {
                let plan = self.plan(id).ok().flatten();
                (
                    self.client(id).ok().flatten(),
                    plan.map(|plan| plan.monitor),
                )
            }
            Target::Exec(..) => (None, None),
        };
        let exit = match self.call(target, &call, &[], silence::ACTION).await {
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
            // The container has ended: its monitor is not needed to remove what is left.
            Err(Error::Unresponsive { .. })
                if target.exec_id().is_none() && self.exit_record(id)?.is_some() =>
            {
                self.end_monitor(id, true).await?.exit
            }
            Err(error) => return Err(error),
        };
        if target.exec_id().is_none() {
            self.clients().remove(id);
            if let Some(client) = client
                && !client.ended(SHUTDOWN_TIMEOUT).await
                && let Some(Ok(monitor)) = monitor.map(|monitor| procfs::open_pidfd(&monitor))
            {
                // It was stopped since it answered, or it hangs, and holds nothing any more.
                let _ = sys::pidfd_send_signal(monitor.as_fd(), libc::SIGKILL);
            }
            remove_staged_files(&self.root.container(id));
            // This fails while a store keeps a record in the folder; the store then removes it.
            let _ = fs::remove_dir(self.root.container(id).path());
        }
        Ok(exit)
    }

    async fn remove_view(&self, view: &ViewRequest) -> Result<()> {
        let target = Target::Init(view.id.clone());
        let call = Request::RemoveView(Box::new(view.clone()));
        match self
            .run_helper(&target, &call, "remove the view", recovery::CLEANUP_TIMEOUT)
            .await?
        {
            Response::Done => Ok(()),
            _ => Err(unexpected_answer(&target)),
        }
    }
}
