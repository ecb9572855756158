//! Creating the container.
//!
//! The steps are in an order in which each can be undone. First `plan.json` is written, which names
//! all that the following steps make, so that another program can clean up if the monitor is killed
//! on the way. Then come the cgroup, the view of the filesystem, the socket that other clients
//! connect to, and the init process, which waits for its start. When a step fails, what the earlier
//! ones made is removed in reverse, and the client gets the failure of that step.

use std::{io, os::fd::OwnedFd};

use reaper_spec::CgroupMode;
use reaper_state::ContainerDir;

use super::{host_backend::HostBackend, runtime_backend::RuntimeBackend};
use crate::{
    cgroup::{Cgroups, Claim, Hierarchies, devices, limits, systemd::Scope},
    channel,
    hooks::HookFolder,
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
            placeholder::Placeholder,
        },
    },
    namespaces::{Namespace, PidNamespace, refuse_in_own_network},
    protocol::{CleanupRecord, CreateContainer, Failure, VERSION},
    selinux,
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
            refused: Vec::new(),
            placeholder: None,
            oom_kills: 0,
            view: None,
            runtime: None,
            filter: None,
            project_filter: None,
            hook_bundle: None,
            namespaces: Vec::new(),
            pids: PidNamespace::default(),
        }
    }

    fn create(&mut self) -> Result<(OwnedFd, Process), Failure> {
        if self.call.runtime.is_none() {
            self.label_mounts()?;
            self.namespaces = Namespace::open_all(&self.call.namespaces)?;
            self.pids = PidNamespace::take(&mut self.namespaces, self.call.new_pid_namespace)?;
            let joins_network = self.namespaces.iter().any(Namespace::is_network);
            if !joins_network {
                refuse_in_own_network(&self.call.sysctls)?;
                self.call.sysctls.clear();
            }
            // One that only keeps a namespace looks at nothing.
            let sees = !self.call.holds_pids;
            self.call.view.own_network = sees && joins_network;
            self.call.view.own_pids = sees && self.pids.is_private();
        }
        let (hierarchies, path) = choose_cgroups(&self.call)?;
        let scope = match hierarchies == Hierarchies::default() {
            true => None,
            false => Scope::of(&path),
        };
        let path = scope.as_ref().map_or(path, Scope::container);
        // A record that an earlier container of this id left must not be read as this one's exit.
        remove_file(&self.dir.exit_file())?;
        remove_file(&self.dir.socket())?;
        HookFolder::of(self.dir.path()).remove();
        let claim = Claim::new(
            self.pending.identity.clone(),
            self.call.cgroups_path.is_some(),
        );
        let planned = Cgroups::at_if_empty(&hierarchies, &path, &claim)
            .map_err(|error| Failure::from_error("make the cgroup", &error))?;
        self.write_plan(planned.clone())?;
        if let Some(scope) = scope {
            self.start_scope(&scope, &hierarchies)?;
        }
        self.create_cgroups(planned, &claim)?;
        self.set_limits()?;
        let view = self.pending.config.isolation.prepare(&self.call.view);
        self.view =
            Some(view.map_err(|error| Failure::from_error("prepare the filesystem view", &error))?);
        let listener = channel::listen(&self.dir.socket())
            .map_err(|error| Failure::setup("listen on the monitor's socket", &error))?;
        let backend = self.backend;
        let init = backend.create_init(self)?;
        self.placeholder = None;
        Ok((listener, init))
    }

    fn label_mounts(&mut self) -> Result<(), Failure> {
        let Some(label) = self.call.process.labels.mount_label.as_deref() else {
            return Ok(());
        };
        if !selinux::is_enabled() {
            let step = format!("label mounts {label}");
            return Err(Failure::setup(step, &selinux::missing("SELinux")));
        }
        selinux::label_mounts(label, &mut self.call.view.mounts);
        Ok(())
    }

    fn create_cgroups(&mut self, planned: Cgroups, claim: &Claim) -> Result<(), Failure> {
        let (cgroups, refused) = planned
            .create(claim)
            .map_err(|error| Failure::from_error("make the cgroup", &error))?;
        self.oom_kills = cgroups.oom_kills().unwrap_or(0);
        self.cgroups = cgroups;
        self.refused = refused;
        Ok(())
    }

    /// Sets the limits of the cgroups. The spec's limits are enforced or refused; whether
    /// processes can be told apart, killed and frozen exactly is a line in the log, since an
    /// ordinary user's containers run without.
    fn set_limits(&self) -> Result<(), Failure> {
        if self.call.runtime.is_some() {
            return Ok(());
        }
        let refused = &self.refused;
        let mode = self.call.options.cgroups;
        let rules = &self.call.resources.devices;
        let mut lines = Vec::new();
        match refused.first() {
            Some(error) => lines.push(format!("a cgroup is missing: {error}")),
            None if mode != CgroupMode::Off && self.cgroups.is_empty() => {
                lines.push("a cgroup is missing: no hierarchy is mounted and writable".to_owned());
            }
            None => {}
        }
        if mode == CgroupMode::Enforce {
            limits::apply(&self.cgroups, &self.call.resources, refused)
                .map_err(|error| Failure::from_error("set the limits", &error))?;
            let missing = devices::apply(&self.cgroups, rules, refused)
                .map_err(|error| Failure::from_error("set the device rules", &error))?;
            let line = |error| format!("the engine's device rules do not hold: {error}");
            lines.extend(missing.map(line));
        } else if devices::restrict(rules) {
            let mode = mode.as_str();
            lines.push(format!("device rules are not set: cgroups is {mode:?}"));
        }
        if !lines.is_empty() {
            self.log(&lines.join("; "));
        }
        Ok(())
    }

    /// Has systemd make the scope that the container's cgroup is to be in. Without limits it is a line
    /// in the log that this failed.
    fn start_scope(&mut self, scope: &Scope, hierarchies: &Hierarchies) -> Result<(), Failure> {
        let start = || {
            let failed = |error: io::Error| Failure::setup("keep a scope", &error);
            let mut placeholder = Placeholder::new().map_err(failed)?;
            scope
                .start(placeholder.pid())
                .map_err(|error| Failure::from_error("make the cgroup", &error))?;
            if let Some(v2) = &hierarchies.v2 {
                let folder = v2.root().join(scope.keeper());
                placeholder.move_into(folder).map_err(failed)?;
            }
            Ok(placeholder)
        };
        match start() {
            Ok(placeholder) => self.placeholder = Some(placeholder),
            Err(failure) if self.call.options.cgroups == CgroupMode::Enforce => {
                return Err(failure);
            }
            Err(failure) => {
                let line = format!("the cgroup is not systemd's: {failure:?}");
                self.log(&line);
            }
        }
        Ok(())
    }

    fn log(&self, line: &str) {
        log_line(
            self.call.options.log.as_deref(),
            self.call.id.as_str(),
            line,
        );
    }

    fn write_plan(&self, cgroups: Cgroups) -> Result<(), Failure> {
        let record = CleanupRecord {
            version: VERSION,
            monitor: self.pending.identity.clone(),
            view: self.call.view.clone(),
            cgroups,
            runtime: self.call.runtime.clone(),
            hooks: self.call.hooks.clone(),
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
