//! The hooks that are run in the container's namespaces, by its first process.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use reaper_overlay::BundleMirror;
use reaper_spec::{ContainerId, Hook, HookKind, Status};
use rustix::fs::{Mode, OFlags};

use super::step::{Failed, Step as _, from_error};
use crate::{
    channel,
    hooks::{HookBundle, HookFolder, Place, Surroundings, run, state},
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
    /// The root in which programs are looked up that are run in the container's namespaces but named in
    /// the runtime's: what lies at such a path in the view may have been put there by a container.
    pub(super) fn runtime_root() -> Result<OwnedFd, Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty());
        root.step("open the root")
    }

    /// Has the monitor run the hooks that come first, and runs those of the container's creation. The
    /// process is in its view.
    pub(super) fn at_creation(
        self,
        start_socket: &OwnedFd,
        runtime_root: &OwnedFd,
    ) -> Result<(), Failed> {
        channel::send(start_socket.as_fd(), &ChildReport::Environment, &[])
            .step("report to the monitor")?;
        let done = channel::receive(start_socket.as_fd()).step("wait for the hooks")?;
        // Without it the monitor has exited, or given the container up.
        if done.is_none() {
            sys::exit_now(127);
        }
        let hooks = &self.config.hooks.create_container;
        if hooks.is_empty() {
            return Ok(());
        }
        let mirror = BundleMirror::show(self.folder.path(), &self.bundle.config, &self.bundle.root);
        let mirror = mirror.map_err(|error| from_error("show the bundle to the hooks", &error))?;
        let surroundings = Surroundings {
            programs: Place::Root(runtime_root.as_fd()),
            directory: &self.folder.path().join(&self.bundle.root),
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
            programs: Place::Here,
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
