//! What changes the life of a process: start, kill, pause, delete.

use std::sync::Arc;

use containerd_shim_protos::{
    api::{
        DeleteRequest, DeleteResponse, Empty, KillRequest, PauseRequest, ResumeRequest,
        StartRequest, StartResponse, UpdateTaskRequest,
    },
    events::task::{TaskDelete, TaskPaused, TaskResumed},
};
use reaper_exec::{Executor, Signal, Target, engine};
use reaper_spec::{Exit, Resources, Status, Timestamp};
use reaper_state::StateStore;

use super::Inner;
use crate::{
    Error, Event, Result,
    container::Container,
    process::{Process, proto_time},
    sandbox,
    timeout::with_timeout,
};

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> Inner<E, S> {
    pub(super) async fn start(self: Arc<Self>, request: StartRequest) -> Result<StartResponse> {
        let container = self.registry.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        container.begin_start(&process)?;
        // The guard reports how the start went even if this request is cancelled or panics: until
        // then the process's exit event is held back.
        let mut guard = StartGuard {
            inner: &self,
            process: &process,
            pid: None,
        };
        let started = match &process.target {
            Target::Init(id) if container.sandbox => {
                let started = with_timeout("start", sandbox::start(self.engine.store(), id)).await;
                started.map(|()| process.pid())
            }
            Target::Init(id) => {
                let started = with_timeout("start", self.engine.start(id)).await;
                started.map(|_| process.pid())
            }
            Target::Exec(..) => {
                let executor = self.engine.executor();
                let started = with_timeout("start", executor.start(&process.target)).await;
                started.map(|process| process.pid)
            }
        };
        guard.pid = started.as_ref().ok().copied();
        drop(guard);
        Ok(StartResponse {
            pid: started?,
            ..StartResponse::default()
        })
    }

    pub(super) async fn kill(self: Arc<Self>, request: KillRequest) -> Result<Empty> {
        let container = self.registry.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.exit().is_some() {
            return Err(reaper_exec::Error::Ended(process.target.clone()).into());
        }
        let signal = Signal::try_from(i32::try_from(request.signal).unwrap_or(i32::MAX))?;
        if container.sandbox {
            self.kill_sandbox(&container, signal).await?;
            return Ok(Empty::default());
        }
        // An exec is killed with all that it started: a probe that timed out leaves nothing.
        let all = request.all || signal == Signal::KILL && process.target.exec_id().is_some();
        let killed = self.engine.executor().kill(&process.target, signal, all);
        match killed.await {
            // Only the store knows init's pid, and SIGKILL needs neither. After an error here
            // containerd would never come to send SIGKILL.
            Err(reaper_exec::Error::Unresponsive { .. })
                if process.target.exec_id().is_none() && signal != Signal::KILL =>
            {
                self.engine.kill(&container.id, signal, all).await?;
                Ok(Empty::default())
            }
            Err(reaper_exec::Error::NotFound(_) | reaper_exec::Error::Ended(_)) => {
                // It has ended of its own accord. Until that is published the kill has won.
                match process.exit() {
                    Some(_) => Err(reaper_exec::Error::Ended(process.target.clone()).into()),
                    None => Ok(Empty::default()),
                }
            }
            answer => Ok(answer.map(|()| Empty::default())?),
        }
    }

    async fn kill_sandbox(&self, container: &Container, signal: Signal) -> Result<()> {
        let Some(status) = sandbox::end_by(signal) else {
            return Ok(());
        };
        let exit = Exit::new(status, Timestamp::now());
        if let Err(error) = sandbox::end(self.engine.store(), &container.id, exit.clone()).await {
            tracing::warn!(id = %container.id, %error, "the end of a sandbox is not committed");
        }
        container.init.ended(exit, &*self.events);
        Ok(())
    }

    pub(super) async fn pause(self: Arc<Self>, request: PauseRequest) -> Result<Empty> {
        let container = self.with_processes(&request.id, "pause")?;
        let _lock = container.lifecycle_lock.lock().await;
        with_timeout("pause", self.engine.pause(&container.id)).await?;
        container.set_paused(true);
        let container_id = request.id;
        self.events.publish(Event::Paused(TaskPaused {
            container_id,
            ..TaskPaused::default()
        }));
        Ok(Empty::default())
    }

    pub(super) async fn resume(self: Arc<Self>, request: ResumeRequest) -> Result<Empty> {
        let container = self.with_processes(&request.id, "resume")?;
        let _lock = container.lifecycle_lock.lock().await;
        with_timeout("resume", self.engine.resume(&container.id)).await?;
        container.set_paused(false);
        let container_id = request.id;
        self.events.publish(Event::Resumed(TaskResumed {
            container_id,
            ..TaskResumed::default()
        }));
        Ok(Empty::default())
    }

    /// The limits travel as the JSON of `linux.resources`.
    pub(super) async fn update(self: Arc<Self>, request: UpdateTaskRequest) -> Result<Empty> {
        let container = self.with_processes(&request.id, "update")?;
        let resources = Resources::parse(&request.resources.value)?;
        let executor = self.engine.executor();
        with_timeout("update", executor.update(&container.id, &resources)).await?;
        Ok(Empty::default())
    }

    fn with_processes(&self, id: &str, operation: &'static str) -> Result<Arc<Container>> {
        let container = self.registry.get(id)?;
        let status = container.init.status();
        if status == Status::Stopped {
            return Err(Error::status(operation, &container.init.target, status));
        }
        if container.sandbox {
            return Err(Error::Unsupported {
                operation,
                target: container.init.target.to_string(),
                reason: "a sandbox has no processes; pause the containers of the pod",
            });
        }
        Ok(container)
    }

    pub(super) async fn delete(self: Arc<Self>, request: DeleteRequest) -> Result<DeleteResponse> {
        let container = self.registry.get(&request.id)?;
        let _lock = container.lifecycle_lock.lock().await;
        // Another request may have deleted it while this one waited for the lock.
        let container = self.registry.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = self.end_of(&container, &process).await?;
        match process.target.exec_id() {
            Some(exec) => {
                with_timeout("delete", self.engine.executor().delete(&process.target)).await?;
                container.remove_exec(exec);
            }
            None => self.delete_container(&container, &exit).await?,
        }
        Ok(DeleteResponse {
            pid: process.pid(),
            exit_status: exit.status.code(),
            exited_at: proto_time(exit.at),
            ..DeleteResponse::default()
        })
    }

    /// The published end of a process that is to be deleted. One that was never started is
    /// killed.
    async fn end_of(&self, container: &Container, process: &Process) -> Result<Exit> {
        if let Some(exit) = process.exit() {
            return Ok(exit);
        }
        let status = process.status();
        if container.sandbox {
            if status != Status::Created {
                return Err(not_stopped(process, status));
            }
            self.kill_sandbox(container, Signal::KILL).await?;
        } else if status == Status::Created {
            match self
                .engine
                .executor()
                .kill(&process.target, Signal::KILL, true)
                .await
            {
                Ok(()) | Err(reaper_exec::Error::NotFound(_) | reaper_exec::Error::Ended(_)) => {}
                Err(error) => return Err(error.into()),
            }
        } else if !self.has_stopped(process).await {
            return Err(not_stopped(process, status));
        }
        with_timeout("delete", async { Ok::<_, Error>(process.wait().await) }).await
    }

    /// Whether a container has ended, with its exit still on the way here.
    async fn has_stopped(&self, process: &Process) -> bool {
        match &process.target {
            Target::Init(id) => with_timeout("observe", self.engine.executor().state(id))
                .await
                .is_ok_and(|seen| seen.status == Status::Stopped),
            Target::Exec(..) => false,
        }
    }

    async fn delete_container(&self, container: &Container, exit: &Exit) -> Result<()> {
        let id = &container.id;
        if container.sandbox {
            with_timeout("delete", sandbox::delete(&self.engine, id)).await?;
        } else {
            if container.holds_pids {
                sandbox::remove_view_of(&self.engine, id).await;
            }
            match with_timeout("delete", self.engine.delete(id, false)).await {
                // Deleted from outside, by `reaper-runtime` for example.
                Err(Error::Engine(engine::Error::Store(reaper_state::Error::NotFound {
                    ..
                }))) => {}
                // On a full or read-only state root the record stays. The processes must not.
                Err(Error::Engine(engine::Error::Store(
                    error @ reaper_state::Error::Io { .. },
                ))) => {
                    let init = &container.init.target;
                    with_timeout("delete", self.engine.executor().delete(init)).await?;
                    tracing::warn!(%id, %error, "the record of a deleted container is left");
                }
                deleted => drop(deleted?),
            }
        }
        self.registry.remove(id);
        self.events.publish(Event::Delete(TaskDelete {
            container_id: id.to_string(),
            pid: container.init.pid(),
            exit_status: exit.status.code(),
            exited_at: proto_time(exit.at),
            ..TaskDelete::default()
        }));
        Ok(())
    }
}

fn not_stopped(process: &Process, status: Status) -> Error {
    Error::status("delete", &process.target, status)
}

/// A start whose outcome is told when this is dropped.
struct StartGuard<'a, E, S: ?Sized> {
    inner: &'a Inner<E, S>,
    process: &'a Process,
    /// Once the program was executed.
    pid: Option<u32>,
}

impl<E, S: ?Sized> Drop for StartGuard<'_, E, S> {
    fn drop(&mut self) {
        match self.pid {
            Some(pid) => self.process.started(pid, &*self.inner.events),
            None => self.process.start_failed(&*self.inner.events),
        }
    }
}
