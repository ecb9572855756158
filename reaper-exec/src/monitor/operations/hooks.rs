//! The hooks that are run in the runtime's namespaces, and what follows from them.
//!
//! Another process runs them ([`HookRunner`]), so the monitor serves its clients meanwhile. Those of the
//! container's namespaces are run by its first process (`child/hooks.rs`).

use std::os::fd::AsFd as _;

use nix::sys::signal::Signal as NixSignal;
use reaper_spec::{Exit, HookKind, ProcessIdentity, Status};

use crate::{
    channel,
    hooks::{HookFolder, Surroundings, run, run_all, state},
    monitor::{
        container::{
            hooks::{AfterHooks, HookRun},
            monitor::Monitor,
        },
        support::{
            connection::ReplyTo,
            container_files::remove_runtime_files,
            hook_runner::HookRunner,
            states::{MonitorState, ProcessState},
        },
    },
    protocol::{Failure, HooksConfig, Response, RuntimeHooksDone},
    records,
};

impl Monitor {
    /// The first process is in the container's environment and waits: runs the hooks that come before
    /// those that it runs itself.
    pub(crate) fn environment_ready(&mut self) {
        let (Some(pid), Some(bundle)) = (self.processes[0].pid_number(), &self.hook_bundle) else {
            return self.creation_failed(0, Failure::NotFound);
        };
        if let Err(error) = self.hook_folder().make(bundle, pid) {
            let failure = Failure::setup("make the bundle of the hooks", &error);
            return self.creation_failed(0, failure);
        }
        let kinds = [HookKind::Prestart, HookKind::CreateRuntime];
        match self.run_hooks(&kinds, Status::Creating, AfterHooks::Create) {
            Ok(true) => {}
            Ok(false) => self.runtime_hooks_done(),
            Err(failure) => self.creation_failed(0, failure),
        }
    }

    /// Has the first process go on.
    fn runtime_hooks_done(&mut self) {
        let Some(start_socket) = &self.processes[0].start_socket else {
            return;
        };
        // Where this fails it has exited, which is about to be seen.
        let _ = channel::send(start_socket.as_fd(), &RuntimeHooksDone, &[]);
    }

    /// The program of init was executed: runs the hooks for that, and then answers the client.
    pub(crate) fn init_executed(&mut self, to: ReplyTo, identity: ProcessIdentity) {
        let after = AfterHooks::Start(to, identity.clone());
        match self.run_hooks(&[HookKind::Poststart], Status::Running, after) {
            Ok(true) => {}
            Ok(false) => _ = self.reply(to, Ok(Response::Started(identity))),
            Err(failure) => self.poststart_failed(to, failure),
        }
    }

    /// Stops the container whose start has failed after its program was executed. The client is answered
    /// when that is done.
    fn poststart_failed(&mut self, to: ReplyTo, failure: Failure) {
        if let MonitorState::Stopped(_) | MonitorState::Aborted = self.state {
            self.reply(to, Err(failure));
            return;
        }
        let init = self.init();
        init.failed_start.get_or_insert((to, failure));
        if !matches!(init.state, ProcessState::Stopped(_)) {
            init.signal(NixSignal::SIGKILL);
            self.thaw_killed();
            self.expect_exit();
        }
    }

    /// The container is gone but for its files: runs the hooks for that, once, if others were run before,
    /// and then does what follows.
    pub(crate) fn end_hooks(&mut self, after: AfterHooks) {
        // The client of a start need not know more of it than that it was started.
        if let Some(HookRun { runner, after }) = self.hook_run.take()
            && let AfterHooks::Start(to, identity) = after
        {
            self.dismissed_runner = Some(runner.pid());
            self.reply(to, Ok(Response::Started(identity)));
        }
        let is_due = self.hooks.is_some() && self.hook_folder().claim_end();
        let ran = match is_due {
            true => self.run_hooks(&[HookKind::Poststop], Status::Stopped, after.clone()),
            false => Ok(false),
        };
        match ran {
            Ok(true) => {}
            Ok(false) => self.hooks_ended(after),
            Err(failure) => {
                self.log(&format!("{failure:?}"));
                self.hooks_ended(after);
            }
        }
    }

    fn hooks_ended(&mut self, after: AfterHooks) {
        self.hook_folder().remove();
        match after {
            AfterHooks::Delete(client, exit) => {
                self.kill_children();
                // exit.json goes first: while there is a plan.json, another client can repeat a
                // deletion that was interrupted.
                let _ = records::remove(&self.dir.exit_file());
                remove_runtime_files(&self.dir);
                self.deleted_for = Some(client);
                for to in std::mem::take(&mut self.deleting) {
                    self.reply(to, Ok(Response::Deleted(Some(exit.clone()))));
                }
            }
            AfterHooks::Abort(to, failure) => {
                remove_runtime_files(&self.dir);
                self.reply(to, Err(failure));
            }
            AfterHooks::Create | AfterHooks::Start(..) => {}
        }
    }

    /// The hooks that are run have ended.
    pub(crate) fn hooks_ready(&mut self) {
        let Some(HookRun { runner, after }) = self.hook_run.take() else {
            return;
        };
        let mut failures = runner.failures();
        match after {
            AfterHooks::Create if failures.is_empty() => self.runtime_hooks_done(),
            AfterHooks::Create => self.creation_failed(0, failures.swap_remove(0).into()),
            AfterHooks::Start(to, identity) if failures.is_empty() => {
                self.reply(to, Ok(Response::Started(identity)));
            }
            AfterHooks::Start(to, _) => self.poststart_failed(to, failures.swap_remove(0).into()),
            after @ (AfterHooks::Delete(..) | AfterHooks::Abort(..)) => {
                for failure in failures {
                    self.log(&failure.to_string());
                }
                self.hooks_ended(after);
            }
        }
    }

    /// Deletes the container, whose resources are released, and answers `to` and who asks meanwhile.
    pub(crate) fn delete_with_hooks(&mut self, to: ReplyTo, exit: Exit) {
        self.deleting.push(to);
        if self.deleting.len() == 1 {
            self.end_hooks(AfterHooks::Delete(to.connection, exit));
        }
    }

    pub(crate) fn hook_folder(&self) -> HookFolder {
        HookFolder::of(self.dir.path())
    }

    /// Has the hooks of these kinds run. Returns whether there are any.
    fn run_hooks(
        &mut self,
        kinds: &[HookKind],
        status: Status,
        after: AfterHooks,
    ) -> Result<bool, Failure> {
        let Some(config) = &self.hooks else {
            return Ok(false);
        };
        let HooksConfig {
            hooks, annotations, ..
        } = config;
        if kinds.iter().all(|&kind| hooks.of(kind).is_empty()) {
            return Ok(false);
        }
        let folder = self.hook_folder();
        let pid = self.processes[0].pid_number();
        let pid = pid.filter(|_| status != Status::Stopped);
        let state = state(
            &self.id,
            status,
            pid,
            Some(folder.path()),
            Some(annotations),
        );
        let runner = HookRunner::start(self.oom_score_adj, |wanted| {
            let surroundings = Surroundings {
                root: None,
                directory: folder.path(),
                wanted: Some(wanted),
            };
            let run_kind = |&kind: &HookKind| run(kind, hooks.of(kind), &state, surroundings);
            match status {
                Status::Stopped => {
                    run_all(HookKind::Poststop, &hooks.poststop, &state, surroundings)
                }
                _ => kinds
                    .iter()
                    .try_for_each(run_kind)
                    .err()
                    .into_iter()
                    .collect(),
            }
        });
        let runner = runner.map_err(|error| Failure::setup("run the hooks", &error))?;
        self.hook_run = Some(HookRun { runner, after });
        Ok(true)
    }
}
