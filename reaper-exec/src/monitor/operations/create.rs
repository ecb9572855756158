//! Creating the container.
//!
//! The steps are in an order in which each can be undone. First `plan.json` is written, which names
//! all that the following steps make, so that another program can clean up if the monitor is killed
//! on the way. Then come the cgroup, the view of the filesystem, the socket that other clients
//! connect to, and the init process, which waits for its start. When a step fails, what the earlier
//! ones made is removed in reverse, and the client gets the failure of that step.

use std::{os::fd::OwnedFd, path::Path};

use reaper_spec::CgroupMode;
use reaper_state::ContainerDir;

use super::{host_backend::HostBackend, runtime_backend::RuntimeBackend};
use crate::{
    cgroup::{Cgroups, Hierarchies, limits},
    channel,
    monitor::{
        container::{
            backend::Backend,
            monitor::Monitor,
            new_container::{NewContainer, PendingMonitor},
        },
        process::state::Process,
        support::{
            connection::Connection,
            container_files::{
                choose_cgroups, remove_file, remove_runtime_files, write_cleanup_record,
            },
            log::log_line,
        },
    },
    protocol::{CleanupRecord, CreateContainer, Failure, VERSION},
};

/// Creates the container. On failure nothing is left of it, and the connection to the client that
/// asked for it is returned with the failure.
pub(crate) fn create(
    pending: PendingMonitor,
    call: CreateContainer,
    descriptors: Vec<OwnedFd>,
) -> Result<Monitor, (Connection, Failure)> {
    let mut new = NewContainer::new(pending, call, descriptors);
    match new.create() {
        Ok((listener, init)) => {
            let view = new.view.take().expect("init was created in it");
            Ok(Monitor::new(new, view, listener, init))
        }
        Err(failure) => Err((new.undo(), failure)),
    }
}

impl NewContainer {
    fn new(
        mut pending: PendingMonitor,
        mut call: CreateContainer,
        descriptors: Vec<OwnedFd>,
    ) -> Self {
        let user = call.process.user.as_ref();
        call.view.user = user.map(|user| (user.uid, user.gid));
        let backend: &'static dyn Backend = match call.runtime {
            Some(_) => &RuntimeBackend,
            None => &HostBackend,
        };
        if let Some(isolation) = backend.isolation() {
            pending.config.isolation = isolation;
        }
        Self {
            pending,
            backend,
            dir: ContainerDir::new(&call.dir),
            call,
            descriptors,
            cgroups: Cgroups::default(),
            oom_kills: 0,
            view: None,
            runtime: None,
            filter: None,
        }
    }

    fn create(&mut self) -> Result<(OwnedFd, Process), Failure> {
        let (hierarchies, path) = choose_cgroups(&self.call)?;
        // A record that an earlier container of this id left must not be read as this one's exit.
        remove_file(&self.dir.exit_file())?;
        remove_file(&self.dir.socket())?;
        self.write_plan(&hierarchies, &path)?;
        self.create_cgroups(&hierarchies, &path)?;
        let view = self.pending.config.isolation.prepare(&self.call.view);
        self.view =
            Some(view.map_err(|error| Failure::from_error("prepare the filesystem view", &error))?);
        let listener = channel::listen(&self.dir.socket())
            .map_err(|error| Failure::setup("listen on the monitor's socket", &error))?;
        let backend = self.backend;
        Ok((listener, backend.create_init(self)?))
    }

    /// Makes the cgroups with their limits. The spec's limits are enforced or refused; whether
    /// processes can be told apart, killed and frozen exactly is a line in the log, since an
    /// ordinary user's containers run without.
    fn create_cgroups(&mut self, hierarchies: &Hierarchies, path: &Path) -> Result<(), Failure> {
        let created = Cgroups::create(hierarchies, path);
        let (cgroups, refused) =
            created.map_err(|error| Failure::from_error("make the cgroup", &error))?;
        self.oom_kills = cgroups.oom_kills().unwrap_or(0);
        self.cgroups = cgroups;
        if self.call.runtime.is_some() {
            return Ok(());
        }
        let mode = self.call.options.cgroups;
        if mode == CgroupMode::Enforce {
            limits::apply(&self.cgroups, &self.call.resources, &refused)
                .map_err(|error| Failure::from_error("set the limits", &error))?;
        }
        let reason = match refused.first() {
            Some(error) => error.to_string(),
            None if mode != CgroupMode::Off && self.cgroups.is_empty() => {
                "no hierarchy is mounted and writable".to_owned()
            }
            None => return Ok(()),
        };
        let line = format!("a cgroup is missing: {reason}");
        log_line(
            self.call.options.log.as_deref(),
            self.call.id.as_str(),
            &line,
        );
        Ok(())
    }

    fn write_plan(&self, hierarchies: &Hierarchies, path: &Path) -> Result<(), Failure> {
        let cgroups = Cgroups::at_if_empty(hierarchies, path)
            .map_err(|error| Failure::from_error("make the cgroup", &error))?;
        let record = CleanupRecord {
            version: VERSION,
            monitor: self.pending.identity.clone(),
            view: self.call.view.clone(),
            cgroups,
            runtime: self.call.runtime.clone(),
        };
        write_cleanup_record(&self.dir, &record)
    }

    /// Removes what was made, and returns the connection to the client.
    ///
    /// Errors are ignored: the client gets the reason for undoing, and the next container of this
    /// id removes what could not be removed here.
    fn undo(self) -> Connection {
        if let Some(mut view) = self.view {
            let _ = view.undo();
        }
        let _ = self.cgroups.remove();
        if let Some(runtime) = self.runtime {
            runtime.remove_files();
        }
        remove_runtime_files(&self.dir);
        self.pending.starter
    }
}
