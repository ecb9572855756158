//! Adding processes to containers.

use std::sync::Arc;

use containerd_shim_protos::api::{Empty, ExecProcessRequest};
use reaper_exec::{ExecRequest, Executor, Signal, Target};
use reaper_spec::{ExecId, ProcessSpec, Status};
use reaper_state::StateStore;

use super::Inner;
use crate::{
    Error, Result,
    process::{Process, Stdio},
    timeout::with_timeout,
};

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> Inner<E, S> {
    /// Makes the process at once, gated, so that every error is this request's, and the pid is
    /// known before the start.
    pub(super) async fn exec(self: Arc<Self>, request: ExecProcessRequest) -> Result<Empty> {
        let container = self.registry.get(&request.id)?;
        let exec = ExecId::new(request.exec_id.as_str())?;
        let target = Target::Exec(container.id.clone(), exec.clone());
        if container.sandbox {
            return Err(Error::Unsupported {
                operation: "create",
                target: target.to_string(),
                reason: "a sandbox has no processes; execute it in a container of the pod",
            });
        }
        let reservation = container.reserve_exec(exec.clone())?;
        let status = container.init.status();
        if status != Status::Running {
            return Err(Error::status("make", &target, status));
        }
        let mut process = ProcessSpec::parse(&request.spec.value)?;
        let process_json = String::from_utf8(request.spec.value.clone()).ok();
        container.policy.apply_to_exec(&mut process)?;
        process.terminal = request.terminal;
        process.oom_score_adj = process.oom_score_adj.or(self.settings.oom_score_adj);
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let made = ExecRequest::new(process)
            .with_process_json(process_json)
            .with_stdio(stdio.request());
        let executor = self.engine.executor();
        let created = match with_timeout("exec", executor.exec(&container.id, &exec, made)).await {
            Ok(created) => created,
            Err(error) => {
                if matches!(error, Error::Timeout { .. }) {
                    self.undo_exec(&target).await;
                }
                return Err(error);
            }
        };
        for warning in created.warnings.iter().chain(&created.refused) {
            tracing::warn!(%target, "{warning}");
        }
        let pid = created.process.map_or(0, |process| process.pid);
        let process = Arc::new(Process::new(target.clone(), pid, stdio));
        if let Err(ended) = reservation.fill(Arc::clone(&process), &*self.events) {
            self.undo_exec(&target).await;
            return Err(ended);
        }
        tokio::spawn(self.watch_exec(process));
        Ok(Empty::default())
    }

    /// Kills and removes an exec'd process whose request failed, so that no client knows of it. If
    /// this fails, the process ends with its container.
    pub(super) async fn undo_exec(&self, target: &Target) {
        let executor = self.engine.executor();
        let undone = with_timeout("undo", async {
            match executor.kill(target, Signal::KILL, true).await {
                Ok(()) => drop(executor.wait(target).await?),
                Err(reaper_exec::Error::NotFound(_) | reaper_exec::Error::Ended(_)) => {}
                Err(error) => return Err(error),
            }
            executor.delete(target).await
        });
        if let Err(error) = undone.await {
            tracing::warn!(%target, %error, "an exec'd process could not be undone");
        }
    }

    async fn watch_exec(self: Arc<Self>, process: Arc<Process>) {
        let exit = self.seen_exit(&process.target).await;
        process.ended(exit, &*self.events);
    }
}
