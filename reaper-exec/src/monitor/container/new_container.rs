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
            placeholder::Placeholder,
        },
    },
    namespaces::{Namespace, PidNamespace},
    protocol::CreateContainer,
    seccomp::Filter,
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
    pub(crate) hook_bundle: Option<HookBundle>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pids: PidNamespace,
}
