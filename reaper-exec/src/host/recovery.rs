//! Containers whose monitor does not answer: reading the recorded exit, or cleaning up after a
//! monitor that was killed.

use std::{io, time::Duration};

use reaper_spec::{ContainerId, Exit, ExitStatus, HookKind, Status, Timestamp};
use serde::de::DeserializeOwned;

use super::{HostExecutor, client::ClientError, silence, spawn, unexpected_answer};
use crate::{
    executor::{ContainerState, Error, Result, Target},
    hooks::total_limit,
    procfs,
    protocol::{CleanupRecord, ExitRecord, Request, Response},
    records,
};

/// How long cleaning up after a monitor may take, beside the hooks of the end: an unmount of a file server that does not answer
/// must not hold up the caller for ever.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a process that was killed may take to exit.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(5);

impl HostExecutor {
    /// The state of a container without a monitor: its recorded exit; or, if the monitor was
    /// killed, the exit that is recorded now, after the remaining processes were killed. `creating`
    /// for one that is being created.
    pub(super) async fn recover_exit(&self, id: &ContainerId) -> Result<ContainerState> {
        if let Some(record) = self.exit_record(id)? {
            return Ok(ContainerState::stopped(record.exit));
        }
        self.clean_up(id, false, false).await
    }

    /// As [`recover_exit`](Self::recover_exit), and deletes all files of the container, unless it
    /// is live.
    pub(super) async fn recover_and_remove(&self, id: &ContainerId) -> Result<ContainerState> {
        let recovered = match self.clean_up(id, true, false).await {
            Err(error) if self.plan(id).is_err() => self.remove_unplanned(id, error),
            // It was cleaned up before, or there was nothing to clean up.
            Err(Error::NotFound(_)) => match self.exit_record(id) {
                Ok(Some(record)) => Ok(ContainerState::stopped(record.exit)),
                Ok(None) => Err(Error::NotFound(Target::Init(id.clone()))),
                Err(unreadable) => Ok(ContainerState::stopped(unknown_exit(&unreadable))),
            },
            cleaned => cleaned,
        };
        if recovered.as_ref().is_ok_and(|seen| seen.exit.is_some()) {
            let path = self.root.container(id).exit_file();
            match records::remove(&path) {
                // On a read-only state root. The next container of this id removes it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%id, "remove {}: {error}", path.display());
                }
                _ => {}
            }
        }
        recovered
    }

    /// Removes what is kept of a container of which it is not known what is to be cleaned up, if it has ended. `error`
    /// says why not.
    fn remove_unplanned(&self, id: &ContainerId, error: Error) -> Result<ContainerState> {
        let Ok(Some(record)) = self.exit_record(id) else {
            return Err(error);
        };
        tracing::warn!(%id, "{error}: its cgroups and its view are not cleaned up");
        let dir = self.root.container(id);
        for file in [dir.cleanup_file(), dir.socket()] {
            // Where it stays the next deletion comes here again.
            let _ = records::remove(&file);
        }
        Ok(ContainerState::stopped(record.exit))
    }

    /// What the monitor of a container has recorded at its creation.
    pub(super) fn plan(&self, id: &ContainerId) -> Result<Option<CleanupRecord>> {
        read(&self.root.container(id).cleanup_file())
    }

    /// Cleans up after a monitor that has exited, or that is to be killed.
    pub(super) async fn clean_up(
        &self,
        id: &ContainerId,
        forget: bool,
        kill: bool,
    ) -> Result<ContainerState> {
        let target = Target::Init(id.clone());
        let dir = self.root.container(id);
        let plan = self.plan(id)?.ok_or(Error::NotFound(target.clone()))?;
        if !kill && procfs::is_alive(&plan.monitor) && !procfs::is_killed(&plan.monitor) {
            if !dir.socket().exists() {
                return Ok(ContainerState {
                    status: Status::Creating,
                    process: None,
                    monitor: Some(plan.monitor),
                    exit: None,
                });
            }
            // The monitor may have begun to listen since the request.
            let state = self
                .call(&target, &Request::State, &[], silence::QUERY)
                .await;
            match state {
                Ok(Some(Response::State(seen))) => return Ok(seen),
                Err(error @ Error::Unresponsive { .. }) => return Err(error),
                _ => {}
            }
        }
        let call = Request::Cleanup {
            id: id.clone(),
            dir: dir.path().to_owned(),
            remove: forget,
            kill,
        };
        let hooks = plan.hooks.as_ref().filter(|_| forget);
        let hooks = hooks.map(|hooks| total_limit(&hooks.hooks, &[HookKind::Poststop]));
        let limit = CLEANUP_TIMEOUT + hooks.unwrap_or_default();
        let cleaned = self.run_helper(&target, &call, "clean up", limit).await;
        if self.subreaper {
            self.children.end_orphans();
        }
        let Response::State(observation) = cleaned? else {
            return Err(unexpected_answer(&target));
        };
        // A runtime makes the views of its containers itself.
        if forget && plan.runtime.is_none() {
            let call = Request::CollectGarbage(Box::new(plan.view));
            // Errors are ignored: the container is deleted, and the next deletion does this again.
            let _ = self
                .run_helper(&target, &call, "clear up", CLEANUP_TIMEOUT)
                .await;
        }
        Ok(observation)
    }

    /// Has a new process do a job that may block, and waits for its answer and its exit.
    pub(super) async fn run_helper(
        &self,
        target: &Target,
        call: &Request,
        what: &str,
        limit: Duration,
    ) -> Result<Response> {
        let client = self.spawn_monitor(target)?;
        let monitor = |reason| Error::Monitor {
            target: target.clone(),
            reason,
        };
        let answer = match tokio::time::timeout(limit, client.call(call, &[])).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(failure))) => Err(failure.into_error(target)),
            Ok(Err(ClientError::Closed)) => Err(monitor(spawn::NO_ANSWER.to_owned())),
            Ok(Err(ClientError::Send(source))) => Err(Error::Io {
                operation: format!("{what} after {target}"),
                source,
            }),
            Err(_) => {
                client.kill();
                let limit = limit.as_secs();
                Err(monitor(format!("to {what} took longer than {limit} s")))
            }
        };
        client.ended(KILL_TIMEOUT).await;
        answer
    }

    /// Kills the monitor of a container that is being created, and cleans up after it.
    pub(super) async fn kill_creation(&self, id: &ContainerId) -> Result<()> {
        match self.end_monitor(id, false).await {
            // Its creator has cleaned up.
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn exit_record(&self, id: &ContainerId) -> Result<Option<ExitRecord>> {
        read(&self.root.container(id).exit_file())
    }
}

fn read<T: DeserializeOwned>(path: &std::path::Path) -> Result<Option<T>> {
    records::read(path).map_err(|source| Error::Io {
        operation: format!("read {}", path.display()),
        source,
    })
}

/// The exit of a container of which the record is something else by now, and is going to be removed.
fn unknown_exit(unreadable: &Error) -> Exit {
    let reason = unreadable.to_string();
    Exit::new(ExitStatus::Unknown { reason }, Timestamp::now())
}

/// The exit of an exec whose monitor, which alone knew it, was killed.
pub(super) fn exec_exit(at: Timestamp) -> Exit {
    let reason = "the monitor that waited for it is gone".to_owned();
    Exit::new(ExitStatus::Unknown { reason }, at)
}
