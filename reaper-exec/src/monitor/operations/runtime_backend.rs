//! The backend that has an OCI runtime make the processes.
//!
//! Each method starts a command of the runtime, whose exit is handled in `runtime_finished.rs`, so
//! a slow runtime delays only the client that sent the request.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{sys::signal::Signal as NixSignal, unistd::Pid};
use reaper_overlay::FilesystemIsolation;
use reaper_spec::{ExecId, Exit, ProcessIdentity, Resources, Transition};

use super::runtime_create::create_init;
use crate::{
    executor::ProcessInfo,
    monitor::{
        container::{
            backend::{Backend, Reply},
            monitor::Monitor,
            new_container::NewContainer,
        },
        oci_runtime::rootfs::Image,
        process::state::{INIT, Process},
        support::connection::ReplyTo,
    },
    procfs,
    protocol::{ExecProcess, Failure},
    signal::Signal,
};

/// How long the runtime's `kill` may take.
const RUNTIME_KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the runtime's `delete` may take.
const RUNTIME_DELETE_TIMEOUT: Duration = Duration::from_secs(25);

/// Drives the command line of an OCI runtime.
pub(crate) struct RuntimeBackend;

impl Backend for RuntimeBackend {
    fn isolation(&self) -> Option<Box<dyn FilesystemIsolation>> {
        Some(Box::new(Image))
    }

    fn create_init(&self, new: &mut NewContainer) -> Result<Process, Failure> {
        create_init(new)
    }

    fn exec(
        &self,
        monitor: &mut Monitor,
        call: ExecProcess,
        descriptors: Vec<OwnedFd>,
        reply_to: ReplyTo,
    ) -> Result<(), Failure> {
        monitor.keep_exec(call, descriptors, reply_to)
    }

    fn start(
        &self,
        monitor: &mut Monitor,
        exec: Option<&ExecId>,
        streams: &[BorrowedFd<'_>],
        to: ReplyTo,
    ) -> Reply {
        if !streams.is_empty() {
            return Err(Failure::Unsupported {
                operation: "give a process other streams when it starts".to_owned(),
                reason: "the runtime has given it those of its creation".to_owned(),
            });
        }
        monitor.start_by_runtime(exec, to).map(|()| None)
    }

    fn kill(
        &self,
        monitor: &mut Monitor,
        exec: Option<&ExecId>,
        signal: Signal,
        all: bool,
        to: ReplyTo,
    ) -> Reply {
        monitor.kill_by_runtime(exec, signal, all, to)
    }

    fn kill_unwanted(&self, monitor: &mut Monitor, index: usize) {
        let process = &monitor.processes[index];
        let number = process.number;
        if number == INIT {
            return process.signal(NixSignal::SIGKILL);
        }
        // An error means that it has exited already.
        let _ = monitor.signal_exec(number, Signal::KILL, true);
    }

    fn update(&self, monitor: &mut Monitor, resources: &Resources, to: ReplyTo) -> Reply {
        monitor.update_by_runtime(resources, to).map(|()| None)
    }

    fn pause(&self, monitor: &mut Monitor, to: ReplyTo) -> Reply {
        monitor
            .freeze_by_runtime(Transition::Pause, to)
            .map(|()| None)
    }

    fn resume(&self, monitor: &mut Monitor, to: ReplyTo) -> Reply {
        monitor
            .freeze_by_runtime(Transition::Resume, to)
            .map(|()| None)
    }

    fn pids(&self, monitor: &Monitor) -> Vec<ProcessInfo> {
        monitor.pids_by_descent()
    }

    fn helpers(&self, monitor: &Monitor) -> Vec<u32> {
        let runtime = monitor.runtime.iter();
        runtime.flat_map(|runtime| runtime.commands()).collect()
    }

    fn identify(&self, pid: Pid) -> Option<ProcessIdentity> {
        // The child may be a process that a command of the runtime has not named yet.
        procfs::identify(pid.as_raw().unsigned_abs()).ok()
    }

    fn helper_exited(&self, monitor: &mut Monitor, pid: Pid, exit: &Exit) -> bool {
        monitor.command_exited(pid, &exit.status)
    }

    fn unknown_child_exited(
        &self,
        monitor: &mut Monitor,
        pid: Pid,
        identity: Option<ProcessIdentity>,
        exit: Exit,
    ) {
        if let (Some(runtime), Some(identity)) = (&mut monitor.runtime, identity) {
            runtime.keep_unclaimed(pid, identity, exit);
        }
    }

    fn kill_timeout(&self) -> Duration {
        RUNTIME_KILL_TIMEOUT
    }

    fn delete_timeout(&self) -> Duration {
        RUNTIME_DELETE_TIMEOUT
    }

    fn delete(&self, monitor: &mut Monitor) -> bool {
        let Some(runtime) = &mut monitor.runtime else {
            return true;
        };
        runtime.delete().unwrap_or_else(|failure| {
            monitor.log(&format!("{failure:?}"));
            true
        })
    }
}
