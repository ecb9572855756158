//! A container that is being created.

use std::os::fd::OwnedFd;

use reaper_overlay::View;
use reaper_spec::ProcessIdentity;
use reaper_state::ContainerDir;

use nix::sys::signalfd::SignalFd;

use super::backend::Backend;
use crate::{
    cgroup::{self, Cgroups},
    hooks::HookBundle,
    monitor::{
        oci_runtime::runtime::Runtime,
        support::{
            config::MonitorConfig,
            connection::{Connection, ReplyTo},
            log::log_line,
            placeholder::Placeholder,
        },
    },
    namespaces::{Namespace, PidNamespace},
    protocol::CreateContainer,
    seccomp::{self, Filter},
};

/// What a monitor has before it knows its container.
pub(crate) struct PendingMonitor {
    pub(crate) config: MonitorConfig,
    pub(crate) identity: ProcessIdentity,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) signals: SignalFd,
    /// The connection to the program that started the monitor.
    pub(crate) starter: Connection,
    /// The first request on it.
    pub(crate) reply_to: ReplyTo,
}

/// A container that is being created: the request, and what was made for it so far.
pub(crate) struct NewContainer {
    pub(crate) pending: PendingMonitor,
    pub(crate) backend: &'static dyn Backend,
    pub(crate) dir: ContainerDir,
    pub(crate) call: CreateContainer,
    /// The descriptors that came with the request.
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) cgroups: Cgroups,
    /// Why cgroups are missing.
    pub(crate) refused: Vec<cgroup::Error>,
    /// What keeps systemd's scope until init is in it.
    pub(crate) placeholder: Option<Placeholder>,
    /// The kills for lack of memory that its cgroups had counted before.
    pub(crate) oom_kills: u64,
    pub(crate) view: Option<Box<dyn View>>,
    pub(crate) runtime: Option<Runtime>,
    pub(crate) filter: Option<Filter>,
    /// The filter of processes that must not leave the quota of a project.
    pub(crate) project_filter: Option<Filter>,
    pub(crate) hook_bundle: Option<HookBundle>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pids: PidNamespace,
}

impl NewContainer {
    /// Makes the filter of processes that must not leave the quota of a project, if there is one. A machine for
    /// which none can be made has the quota nevertheless: it stops accidents.
    pub(crate) fn keep_projects(&mut self) {
        if !self
            .view
            .as_ref()
            .is_some_and(|view| view.is_limited_by_project())
        {
            return;
        }
        match seccomp::keep_projects() {
            Ok(filter) => self.project_filter = Some(filter),
            Err(error) => {
                let line = format!("its processes can leave the quota of their scope: {error}");
                log_line(
                    self.call.options.log.as_deref(),
                    self.call.id.as_str(),
                    &line,
                );
            }
        }
    }
}
