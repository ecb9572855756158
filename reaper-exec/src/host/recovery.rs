//! Containers whose monitor does not answer.

use std::{fs, io, os::fd::AsFd as _, time::Duration};

use reaper_spec::{ContainerId, Exit, ExitStatus, Status, Timestamp};
use serde::de::DeserializeOwned;
use tokio::io::Interest;

use super::{HostExecutor, client::ClientError, spawn, unexpected_answer};
use crate::{
    executor::{Error, Observation, Result, Target},
    procfs,
    protocol::{Answer, Call, CleanupRecord, ExitRecord},
    records, sys,
};

/// How long cleaning up after a monitor may take. An unmount of a file server that does not answer
/// must not hold up the caller for ever.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a process that was killed may take to end.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(5);

impl HostExecutor {
    /// What became of a container without a monitor: its recorded end, or, if the monitor was
    /// killed, the end that is recorded now, after what it left has been ended. One that is being
    /// made is `creating`.
    pub(super) async fn recover_exit(&self, id: &ContainerId) -> Result<Observation> {
        if let Some(record) = self.exit_record(id)? {
            return Ok(Observation::stopped(record.exit));
        }
        self.clean_up(id, false).await
    }

    /// As [`recover_exit`](Self::recover_exit), and nothing of the container is left, unless it lives.
    pub(super) async fn recover_and_remove(&self, id: &ContainerId) -> Result<Observation> {
        let recovered = match self.clean_up(id, true).await {
            // Buried before, or there was nothing to be cleaned.
            Err(Error::NotFound(_)) => match self.exit_record(id)? {
                Some(record) => Ok(Observation::stopped(record.exit)),
                None => Err(Error::NotFound(Target::Init(id.clone()))),
            },
            cleaned => cleaned,
        };
        if recovered.as_ref().is_ok_and(|seen| seen.exit.is_some()) {
            let path = self.root.container(id).exit_file();
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    let operation = format!("remove {}", path.display());
                    return Err(Error::Io { operation, source });
                }
                _ => {}
            }
        }
        recovered
    }

    async fn clean_up(&self, id: &ContainerId, forget: bool) -> Result<Observation> {
        let target = Target::Init(id.clone());
        let dir = self.root.container(id);
        let plan: Option<CleanupRecord> = read(&dir.plan_file())?;
        let plan = plan.ok_or(Error::NotFound(target.clone()))?;
        if procfs::is_alive(&plan.monitor) {
            if !dir.socket().exists() {
                return Ok(Observation {
                    status: Status::Creating,
                    process: None,
                    monitor: Some(plan.monitor),
                    exit: None,
                });
            }
            // It may have begun to listen since it was called.
            if let Some(client) = self.client(id)?
                && let Ok(Ok(Answer::Observed(seen))) = client.call(&Call::Observe, &[]).await
            {
                return Ok(seen);
            }
        }
        let call = Call::Cleanup {
            id: id.clone(),
            dir: dir.path().to_owned(),
            remove: forget,
        };
        let cleaned = self.run_helper(&target, &call, "clean up").await;
        if self.subreaper {
            self.children.end_orphans();
        }
        let Answer::Observed(observation) = cleaned? else {
            return Err(unexpected_answer(&target));
        };
        // Views of containers that a runtime makes are its own.
        if forget && plan.runtime.is_none() {
            let call = Call::CollectGarbage(Box::new(plan.view));
            // The container is gone either way; the next one that goes makes up for it.
            let _ = self.run_helper(&target, &call, "clear up").await;
        }
        Ok(observation)
    }

    /// Has a process of its own do what may block, and waits for its answer and its end.
    pub(super) async fn run_helper(
        &self,
        target: &Target,
        call: &Call,
        what: &str,
    ) -> Result<Answer> {
        let client = self.spawn_monitor(target)?;
        let monitor = |reason| Error::Monitor {
            target: target.clone(),
            reason,
        };
        let answer = match tokio::time::timeout(CLEANUP_TIMEOUT, client.call(call, &[])).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(failure))) => Err(failure.into_error(target)),
            Ok(Err(ClientError::Closed)) => Err(monitor(spawn::NO_ANSWER.to_owned())),
            Ok(Err(ClientError::Send(source))) => Err(Error::Io {
                operation: format!("{what} after {target}"),
                source,
            }),
            Err(_) => {
                client.kill();
                let limit = CLEANUP_TIMEOUT.as_secs();
                Err(monitor(format!("to {what} took longer than {limit} s")))
            }
        };
        client.ended(KILL_TIMEOUT).await;
        answer
    }

    /// Kills the monitor of a container that is being made, and cleans up after it.
    pub(super) async fn kill_creation(&self, id: &ContainerId) -> Result<()> {
        let plan: Option<CleanupRecord> = read(&self.root.container(id).plan_file())?;
        let plan = plan.ok_or(Error::NotFound(Target::Init(id.clone())))?;
        // It may have ended meanwhile.
        if let Ok(monitor) = procfs::open_pidfd(&plan.monitor) {
            let _ = sys::pidfd_send_signal(monitor.as_fd(), libc::SIGKILL);
            if let Ok(monitor) = sys::watch(monitor, Interest::READABLE) {
                let _ = tokio::time::timeout(KILL_TIMEOUT, monitor.readable()).await;
            }
        }
        match self.clean_up(id, false).await {
            // Its maker has seen to it.
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn exit_record(&self, id: &ContainerId) -> Result<Option<ExitRecord>> {
        read(&self.root.container(id).exit_file())
    }
}

fn read<T: DeserializeOwned>(path: &std::path::Path) -> Result<Option<T>> {
    records::read(path).map_err(|source| Error::Io {
        operation: format!("read {}", path.display()),
        source,
    })
}

/// The end of an exec that only its monitor knew.
pub(super) fn exec_exit(at: Timestamp) -> Exit {
    let reason = "the monitor that waited for it is gone".to_owned();
    Exit {
        status: ExitStatus::Lost { reason },
        at,
    }
}
