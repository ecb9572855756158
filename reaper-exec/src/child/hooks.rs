//! The hooks that are run in the container's namespaces, by its first process.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::unistd::geteuid;
use reaper_overlay::{BundleMirror, RuntimeRoot};
use reaper_spec::{ContainerId, Hook, HookKind, Status};

use super::step::{Failed, Step as _, from_error};
use crate::{
    channel,
    hooks::{HookBundle, HookFolder, Surroundings, run, state},
    protocol::{ChildReport, HooksConfig},
    sys,
};

/// The hooks of a container, for its first process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChildHooks<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) config: &'a HooksConfig,
    pub(crate) bundle: &'a HookBundle,
    pub(crate) folder: &'a HookFolder,
}

impl ChildHooks<'_> {
    /// What the hooks need of the runtime's files that are run in the container's namespaces but named in
    /// the runtime's, if there are any. The process is not in its view yet.
    pub(super) fn runtime_root(self) -> Result<Option<RuntimeRoot>, Failed> {
        if self.config.hooks.create_container.is_empty() {
            return Ok(None);
        }
        if !geteuid().is_root() {
            let error = reaper_overlay::Error::NeedsRoot {
                what: "a createContainer hook".to_owned(),
            };
            return Err(from_error("keep the root for the hooks", &error));
        }
        let copied = RuntimeRoot::copy();
        let copied = copied.map_err(|error| from_error("keep the root for the hooks", &error))?;
        Ok(Some(copied))
    }

    /// Has the monitor run the hooks that come first, and runs those of the container's creation. The
    /// process is in its view.
    pub(super) fn at_creation(
        self,
        start_socket: &OwnedFd,
        runtime_root: Option<RuntimeRoot>,
    ) -> Result<(), Failed> {
        channel::send(start_socket.as_fd(), &ChildReport::Environment, &[])
            .step("report to the monitor")?;
        let done = channel::receive(start_socket.as_fd()).step("wait for the hooks")?;
        // Without it the monitor has exited, or given the container up.
        if done.is_none() {
            sys::exit_now(127);
        }
        let Some(runtime_root) = runtime_root else {
            return Ok(());
        };
        let hooks = &self.config.hooks.create_container;
        let HookBundle { config, root, .. } = self.bundle;
        let mirror = BundleMirror::show(runtime_root, self.folder.path(), config, root);
        let mirror = mirror.map_err(|error| from_error("show the bundle to the hooks", &error))?;
        let surroundings = Surroundings {
            root: Some(mirror.runtime()),
            directory: mirror.root(),
            wanted: Some(start_socket.as_fd()),
        };
        self.run(
            HookKind::CreateContainer,
            hooks,
            Status::Creating,
            surroundings,
        )?;
        mirror
            .withdraw()
            .map_err(|error| from_error("take the bundle of the hooks away", &error))
    }

    /// Runs the hooks that come right before the program.
    pub(super) fn at_start(self, start_socket: &OwnedFd) -> Result<(), Failed> {
        let surroundings = Surroundings {
            root: None,
            directory: Path::new("."),
            wanted: Some(start_socket.as_fd()),
        };
        let hooks = &self.config.hooks.start_container;
        self.run(
            HookKind::StartContainer,
            hooks,
            Status::Created,
            surroundings,
        )
    }

    fn run(
        self,
        kind: HookKind,
        hooks: &[Hook],
        status: Status,
        surroundings: Surroundings<'_>,
    ) -> Result<(), Failed> {
        let pid = Some(std::process::id());
        let annotations = Some(&self.config.annotations);
        let state = state(self.id, status, pid, Some(self.folder.path()), annotations);
        Ok(run(kind, hooks, &state, surroundings)?)
    }
}
