//! An executor of one's own: another one's, of which no container runs for longer than it may.
//! `time-limit SECONDS COMMAND…`, as root.
//!
//! Everything that runs processes is an `Executor`: one that makes them itself, one that asks another
//! machine, or as here one that adds something to another. What it does not change it passes on,
//! also what has a default in the trait, which would hide what the other one can do.

use std::{error::Error as StdError, process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use reaper_examples::foreground;
use reaper_exec::{
    ContainerState, CreateRequest, CreatedProcess, Engine, ExecRequest, Executor, HostExecutor,
    ProcessInfo, Result, Signal, Stats, Target, io::StandardBinder, monitor,
};
use reaper_overlay::{HostFilesystem, ViewRequest};
use reaper_spec::{ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity, Resources};
use reaper_state::{MemoryStore, StateRoot};

/// Kills a container that has run for `limit`. This program does so: where it ends before, the
/// container runs on.
struct TimeLimit<E> {
    inner: Arc<E>,
    limit: Duration,
}

#[async_trait]
impl<E: Executor + 'static> Executor for TimeLimit<E> {
    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        let process = self.inner.start(target).await?;
        if target.exec_id().is_none() {
            let (inner, target, limit) = (Arc::clone(&self.inner), target.clone(), self.limit);
            // It ends with the container: a later one of the same id is not killed for it.
            tokio::spawn(async move {
                let ended = tokio::time::timeout(limit, inner.wait(&target)).await;
                if ended.is_err() {
                    // It may have ended at this moment.
                    let _ = inner.kill(&target, Signal::KILL, true).await;
                }
            });
        }
        Ok(process)
    }

    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        self.inner.create(request).await
    }
    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        self.inner.exec(id, exec, request).await
    }
    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        self.inner.kill(target, signal, all).await
    }
    async fn kill_group(&self, target: &Target, signal: Signal) -> Result<()> {
        self.inner.kill_group(target, signal).await
    }
    async fn wait(&self, target: &Target) -> Result<Exit> {
        self.inner.wait(target).await
    }
    async fn oom_kills(&self, id: &ContainerId, seen: u64) -> Result<u64> {
        self.inner.oom_kills(id, seen).await
    }
    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        self.inner.update(id, resources).await
    }
    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        self.inner.resize_pty(target, size).await
    }
    async fn close_stdin(&self, target: &Target) -> Result<()> {
        self.inner.close_stdin(target).await
    }
    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.inner.pause(id).await
    }
    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.inner.resume(id).await
    }
    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        self.inner.pids(id).await
    }
    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        self.inner.stats(id).await
    }
    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        self.inner.state(id).await
    }
    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        self.inner.delete(target).await
    }
    async fn remove_view(&self, view: &ViewRequest) -> Result<()> {
        self.inner.remove_view(view).await
    }
}

fn main() -> ExitCode {
    monitor::run_if_monitor(|| monitor::MonitorConfig::new(HostFilesystem, StandardBinder::new()));
    run(std::env::args().skip(1)).unwrap_or_else(|error| {
        eprintln!("time-limit: {error}");
        ExitCode::FAILURE
    })
}

fn run(
    mut arguments: impl Iterator<Item = String>,
) -> std::result::Result<ExitCode, Box<dyn StdError>> {
    let seconds: f64 = arguments.next().ok_or("no time is given")?.parse()?;
    let folder = tempfile::tempdir()?;
    let root = StateRoot::new(folder.path());
    let executor = TimeLimit {
        inner: Arc::new(HostExecutor::new(root.clone())),
        limit: Duration::try_from_secs_f64(seconds)?,
    };
    let engine = Engine::new(executor, Arc::new(MemoryStore::new()), root);
    foreground::run(&engine, foreground::container("limited", arguments)?)
}

#[cfg(test)]
mod tests {
    use reaper_exec::{
        FakeExecutor,
        conformance::{self, Program, Subject},
    };

    use super::*;

    /// The suite on processes that are no more than numbers. `Subject::new` without the rest checks an
    /// executor of real ones.
    #[tokio::test]
    async fn it_keeps_the_contract_of_the_one_below() {
        conformance::run(|| {
            let folder = tempfile::tempdir().unwrap();
            let limited = TimeLimit {
                inner: Arc::new(FakeExecutor::new()),
                limit: Duration::from_secs(3600),
            };
            Subject::new(limited, folder.path())
                .running(|program| match program {
                    Program::Ends(code) => vec!["exit".into(), code.to_string()],
                    Program::Lasts => vec!["last".into()],
                    Program::Missing => vec!["missing".into()],
                    Program::IgnoresTerm => vec!["ignore".into(), "15".into()],
                    Program::EndsByTerm(code) => {
                        vec!["handle".into(), "15".into(), code.to_string()]
                    }
                })
                .without_processes()
                .keeping(folder)
        })
        .await;
    }
}
