//! What changes nothing in a process's life.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::{
    api::{
        CloseIORequest, ConnectRequest, ConnectResponse, Empty, PidsRequest, PidsResponse,
        ProcessInfo, ResizePtyRequest, StateRequest, StateResponse, StatsRequest, StatsResponse,
        Status as TaskStatus, WaitRequest, WaitResponse,
    },
    protobuf::MessageField,
    shim::oci::ProcessDetails,
};
use reaper_exec::{Executor, Stats, Target};
use reaper_spec::{ConsoleSize, Exit, Status};
use reaper_state::StateStore;
use tokio::time::timeout;

use super::Inner;
use crate::{
    Error, Result,
    container::Container,
    event::pack,
    process::{Process, proto_time},
    timeout::with_timeout,
};

/// containerd waits two seconds for the state of a task, and judges what doesn't answer.
const OBSERVE_LIMIT: Duration = Duration::from_secs(1);

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> Inner<E, S> {
    pub(super) async fn state(self: Arc<Self>, request: StateRequest) -> Result<StateResponse> {
        let container = self.registry.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let (status, exit) = self.status(&container, &process).await;
        let mut response = StateResponse {
            id: request.id,
            exec_id: request.exec_id,
            bundle: container.bundle.clone(),
            pid: process.pid(),
            status: task_status(status).into(),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            ..StateResponse::default()
        };
        if let Some(exit) = exit {
            response.exit_status = exit.status.code();
            response.exited_at = proto_time(exit.at);
        }
        Ok(response)
    }

    async fn status(&self, container: &Container, process: &Process) -> (Status, Option<Exit>) {
        if let Some(exit) = process.exit() {
            return (Status::Stopped, Some(exit));
        }
        let known = match process.status() {
            Status::Running if container.is_paused() => Status::Paused,
            known => known,
        };
        let Target::Init(id) = &process.target else {
            return (known, None);
        };
        if container.sandbox {
            return (known, None);
        }
        // Another program may have frozen the cgroup, and the process may have ended with its exit
        // still on the way here.
        match timeout(OBSERVE_LIMIT, self.engine.executor().state(id)).await {
            Ok(Ok(seen)) => {
                container.set_paused(seen.status == Status::Paused);
                (seen.status, seen.exit)
            }
            _ => (known, None),
        }
    }

    pub(super) async fn wait(self: Arc<Self>, request: WaitRequest) -> Result<WaitResponse> {
        let process = self.registry.get(&request.id)?.process(&request.exec_id)?;
        let exit = process.wait().await;
        Ok(WaitResponse {
            exit_status: exit.status.code(),
            exited_at: proto_time(exit.at),
            ..WaitResponse::default()
        })
    }

    pub(super) fn connect(&self, request: &ConnectRequest) -> ConnectResponse {
        ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self
                .registry
                .get(&request.id)
                .map_or(0, |container| container.init.pid()),
            ..ConnectResponse::default()
        }
    }

    pub(super) async fn pids(self: Arc<Self>, request: PidsRequest) -> Result<PidsResponse> {
        let container = self.registry.get(&request.id)?;
        // An ended container names its init process still: without any pid, containerd 1.7 and
        // later take the shim for leaked after a restart, and throw away the exit before
        // it is fetched.
        let entries = if container.sandbox || container.init.exit().is_some() {
            vec![reaper_exec::ProcessInfo::new(container.init.pid())]
        } else {
            with_timeout("pids", self.engine.executor().pids(&container.id)).await?
        };
        let processes = entries
            .into_iter()
            .map(process_info)
            .collect::<Result<_>>()?;
        Ok(PidsResponse {
            processes,
            ..PidsResponse::default()
        })
    }

    pub(super) async fn stats(self: Arc<Self>, request: StatsRequest) -> Result<StatsResponse> {
        let container = self.registry.get(&request.id)?;
        if container.init.exit().is_some() {
            return Err(reaper_exec::Error::Ended(container.init.target.clone()).into());
        }
        let stats = if container.sandbox {
            Stats::default()
        } else {
            with_timeout("stats", self.engine.executor().stats(&container.id)).await?
        };
        let metrics = self.metrics.encode(&stats)?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics),
            ..StatsResponse::default()
        })
    }

    pub(super) async fn resize(self: Arc<Self>, request: ResizePtyRequest) -> Result<Empty> {
        let container = self.registry.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        // Without a terminal, or with one whose program has ended, there is nothing to resize,
        // and clients ask all the same.
        if process.stdio.terminal && process.exit().is_none() && !container.sandbox {
            let size = ConsoleSize {
                width: cells(request.width),
                height: cells(request.height),
            };
            let executor = self.engine.executor();
            unless_ended(with_timeout("resize", executor.resize_pty(&process.target, size)).await)?;
        }
        Ok(Empty::default())
    }

    pub(super) async fn close_io(self: Arc<Self>, request: CloseIORequest) -> Result<Empty> {
        let container = self.registry.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if request.stdin && process.exit().is_none() && !container.sandbox {
            let executor = self.engine.executor();
            unless_ended(with_timeout("close I/O", executor.close_stdin(&process.target)).await)?;
        }
        Ok(Empty::default())
    }
}

fn unless_ended(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Engine(reaper_exec::engine::Error::Executor(
            reaper_exec::Error::NotFound(_) | reaper_exec::Error::Ended(_),
        ))) => Ok(()),
        other => other,
    }
}

fn cells(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn process_info(entry: reaper_exec::ProcessInfo) -> Result<ProcessInfo> {
    let info = match entry.exec {
        Some(exec) => {
            let details = ProcessDetails {
                exec_id: exec.into(),
                ..ProcessDetails::default()
            };
            let packed = pack(&details).map_err(|source| Error::Encode {
                message: "process details",
                source,
            })?;
            MessageField::some(packed)
        }
        None => MessageField::none(),
    };
    Ok(ProcessInfo {
        pid: entry.pid,
        info,
        ..ProcessInfo::default()
    })
}

fn task_status(status: Status) -> TaskStatus {
    match status {
        Status::Creating | Status::Created => TaskStatus::CREATED,
        Status::Running => TaskStatus::RUNNING,
        Status::Paused => TaskStatus::PAUSED,
        Status::Stopped => TaskStatus::STOPPED,
        _ => TaskStatus::UNKNOWN,
    }
}
