//! What a monitor holds: a container and its clients.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use nix::{sys::signalfd::SignalFd, unistd::Pid};
use reaper_overlay::{View, ViewRequest};
use reaper_spec::{ContainerId, ExecId, ProcessIdentity, ProcessSpec, Status};
use reaper_state::ContainerDir;

use super::{
    backend::Backend, hooks::HookRun, killed::KilledChildren, new_container::NewContainer,
    oom::OomWatch,
};
use crate::{
    cgroup::Cgroups,
    executor::MonitorOptions,
    hooks::HookBundle,
    monitor::{
        oci_runtime::runtime::Runtime,
        process::state::{INIT, LiveProcess, Process},
        support::{
            config::MonitorConfig,
            connection::{Connection, ReplyTo, STARTER},
            kill_deadline::KillDeadline,
            log::log_line,
            states::MonitorState,
        },
    },
    namespaces::{Namespace, PidNamespace},
    protocol::{Failure, HooksConfig, Response, SeccompConfig},
    seccomp::Filter,
};

/// A container and its clients.
pub(crate) struct Monitor {
    pub(crate) config: MonitorConfig,
    pub(crate) id: ContainerId,
    pub(crate) namespace: String,
    pub(crate) dir: ContainerDir,
    pub(crate) options: MonitorOptions,
    pub(crate) identity: ProcessIdentity,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) signals: SignalFd,
    pub(crate) listener: OwnedFd,
    pub(crate) connections: Vec<Connection>,
    pub(crate) next_connection: u64,
    /// No descriptor was free for another client. The listener is not polled until then, or until
    /// one is closed.
    pub(crate) accept_again: Option<Instant>,
    pub(crate) view_request: ViewRequest,
    pub(crate) view: Box<dyn View>,
    pub(crate) cgroups: Cgroups,
    /// Makes the container's processes and acts on them.
    pub(crate) backend: &'static dyn Backend,
    /// The state of the backend that drives an OCI runtime.
    pub(crate) runtime: Option<Runtime>,
    /// The filter of each process of the container, and what it was made from.
    pub(crate) filter: Option<Filter>,
    pub(crate) seccomp: Option<SeccompConfig>,
    /// The filter of those that must not leave the quota of a project.
    pub(crate) project_filter: Option<Filter>,
    /// The hooks of the container, and the bundle that they are told of.
    pub(crate) hooks: Option<HooksConfig>,
    pub(crate) hook_bundle: Option<HookBundle>,
    /// The namespaces of every process of the container that are not the host's.
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pids: PidNamespace,
    /// Those that are run now.
    pub(crate) hook_run: Option<HookRun>,
    /// The process that ran hooks which are no longer wanted, and kills what they have started.
    pub(crate) dismissed_runner: Option<u32>,
    /// What init was created from, which fills in what the specs of other processes leave out.
    pub(crate) init_spec: ProcessSpec,
    /// Init is first, for the whole life of the monitor.
    pub(crate) processes: Vec<Process>,
    pub(crate) next_process: u64,
    pub(crate) state: MonitorState,
    /// Those that a runtime has made, which are looked at only.
    pub(crate) runtime_cgroups: Option<Cgroups>,
    pub(crate) oom: OomWatch,
    pub(crate) freezing: Option<Freezing>,
    pub(crate) frozen: bool,
    /// When init, to which SIGKILL was sent, counts as one that cannot be killed.
    pub(crate) kill_deadline: Option<KillDeadline>,
    pub(crate) killed: KilledChildren,
    /// A process of the container that is waited for, as it is not the monitor's child.
    pub(crate) stray: Option<OwnedFd>,
    /// Init keeps a pid namespace, and executes no program.
    pub(crate) holds_pids: bool,
    /// When to write `exit.json` again, which could not be written.
    pub(crate) record_again: Option<Instant>,
    /// Who waits for the deletion that is under way.
    pub(crate) deleting: Vec<ReplyTo>,
    /// The number of the connection of the client that has deleted the container.
    pub(crate) deleted_for: Option<u64>,
    /// The most CPU time that was ever reported, in user mode and in the kernel.
    pub(crate) cpu_ns: (u64, u64),
}

/// How it is known that a freeze is done.
pub(crate) enum FreezeProgress {
    /// By a change of this file, `cgroup.events`.
    Reported(File),
    /// By looking, at this time the next.
    LookedAt(Instant),
}

/// A freeze that is not done.
pub(crate) struct Freezing {
    pub(crate) progress: FreezeProgress,
    pub(crate) reply_to: ReplyTo,
    pub(crate) deadline: Instant,
}

impl Freezing {
    /// What is polled for its end.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        match &self.progress {
            FreezeProgress::Reported(events) => Some(events.as_fd()),
            FreezeProgress::LookedAt(_) => None,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        match &self.progress {
            FreezeProgress::Reported(_) => self.deadline,
            FreezeProgress::LookedAt(next) => self.deadline.min(*next),
        }
    }
}

impl Monitor {
    /// The monitor of a container whose init process, `init`, was created and whose socket is
    /// `listener`.
    pub(crate) fn new(
        new: NewContainer,
        view: Box<dyn View>,
        listener: OwnedFd,
        init: Process,
    ) -> Self {
        let NewContainer {
            pending,
            backend,
            dir,
            call,
            cgroups,
            oom_kills,
            runtime,
            filter,
            project_filter,
            hook_bundle,
            namespaces,
            pids,
            ..
        } = new;
        Self {
            config: pending.config,
            id: call.id,
            namespace: call.namespace,
            dir,
            options: call.options,
            identity: pending.identity,
            oom_score_adj: pending.oom_score_adj,
            signals: pending.signals,
            listener,
            connections: vec![pending.starter],
            next_connection: STARTER + 1,
            accept_again: None,
            view_request: call.view,
            view,
            cgroups,
            backend,
            runtime,
            filter,
            project_filter,
            seccomp: call.seccomp,
            hooks: call.hooks,
            hook_bundle,
            namespaces,
            pids,
            hook_run: None,
            dismissed_runner: None,
            init_spec: call.process,
            processes: vec![init],
            next_process: INIT + 1,
            state: MonitorState::Live,
            runtime_cgroups: None,
            oom: OomWatch {
                earlier: oom_kills,
                ..OomWatch::default()
            },
            freezing: None,
            frozen: false,
            kill_deadline: None,
            killed: KilledChildren::default(),
            stray: None,
            holds_pids: call.holds_pids,
            record_again: None,
            deleting: Vec::new(),
            deleted_for: None,
            cpu_ns: (0, 0),
        }
    }

    /// A number for another process.
    pub(crate) fn number_process(&mut self) -> u64 {
        let number = self.next_process;
        self.next_process += 1;
        number
    }

    pub(crate) fn init(&mut self) -> &mut Process {
        &mut self.processes[0]
    }

    /// The current place in the list of the process with this number.
    pub(crate) fn index_of_number(&self, number: u64) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.number == number)
    }

    pub(crate) fn connection(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|known| known.number == number)
    }

    /// Answers a client. Returns whether it is still connected.
    pub(crate) fn reply(&mut self, to: ReplyTo, answer: Result<Response, Failure>) -> bool {
        let connection = self.connection(to.connection);
        connection.is_some_and(|connection| {
            connection.reply(to.serial, answer);
            !connection.is_closed()
        })
    }

    /// Writes a line to the monitors' log, for errors that no request waits for.
    pub(crate) fn log(&self, message: &str) {
        log_line(self.options.log.as_deref(), self.id.as_str(), message);
    }

    /// The process that a client names.
    pub(crate) fn find(&mut self, exec: Option<&ExecId>) -> Result<&mut Process, Failure> {
        let found = self
            .processes
            .iter_mut()
            .find(|process| process.exec.as_ref() == exec && !process.is_hidden());
        found.ok_or(Failure::NotFound)
    }

    /// The place in the list of the process with this pid that has not exited.
    pub(crate) fn index_of(&self, pid: Pid) -> Option<usize> {
        self.processes.iter().position(|process| {
            let is_it = |live: &LiveProcess| live.pid == pid;
            process.live.as_ref().is_some_and(is_it) && !process.has_ended()
        })
    }

    /// The status in OCI's terms, as clients see it.
    pub(crate) fn status(&self) -> Status {
        self.state.status(&self.processes[0].state, self.frozen)
    }
}
