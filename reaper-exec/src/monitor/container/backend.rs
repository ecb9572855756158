//! Who makes the processes of a container and acts on them.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::unistd::Pid;
use reaper_overlay::FilesystemIsolation;
use reaper_spec::{ExecId, Exit, ProcessIdentity, Resources};

use super::{monitor::Monitor, new_container::NewContainer};
use crate::{
    executor::ProcessInfo,
    monitor::{process::state::Process, support::connection::ReplyTo},
    protocol::{ExecProcess, Failure, Response},
    signal::Signal,
};

/// The answer to a request, or `None` if it is sent later.
pub(crate) type Reply = Result<Option<Response>, Failure>;

/// Makes the processes of a container and acts on them.
///
/// There are two: the host's forks and signals them itself; the OCI runtime's calls a command line
/// such as runc's. A backend has no state: what it needs is in the [`Monitor`], so that its methods
/// can change the monitor too. Requests that no backend would accept, by the container's state,
/// have been refused before.
pub(crate) trait Backend {
    /// The isolation that makes the container's view of the filesystem, if it is not the monitor's.
    fn isolation(&self) -> Option<Box<dyn FilesystemIsolation>>;

    /// Creates the init process.
    fn create_init(&self, new: &mut NewContainer) -> Result<Process, Failure>;

    /// Creates an exec'd process. The client is answered when that is done.
    fn exec(
        &self,
        monitor: &mut Monitor,
        call: ExecProcess,
        descriptors: Vec<OwnedFd>,
        reply_to: ReplyTo,
    ) -> Result<(), Failure>;

    /// Has a created process execute its program, with other `streams` if there are any.
    fn start(
        &self,
        monitor: &mut Monitor,
        exec: Option<&ExecId>,
        streams: &[BorrowedFd<'_>],
        to: ReplyTo,
    ) -> Reply;

    /// Sends a signal to a process, or with `all` to all of its container or exec.
    fn kill(
        &self,
        monitor: &mut Monitor,
        exec: Option<&ExecId>,
        signal: Signal,
        all: bool,
        to: ReplyTo,
    ) -> Reply;

    /// Kills a process that its client no longer wants.
    fn kill_unwanted(&self, monitor: &mut Monitor, index: usize);

    /// Changes the limits of the container.
    fn update(&self, monitor: &mut Monitor, resources: &Resources, to: ReplyTo) -> Reply;

    /// Freezes the container.
    fn pause(&self, monitor: &mut Monitor, to: ReplyTo) -> Reply;

    /// Thaws the container.
    fn resume(&self, monitor: &mut Monitor, to: ReplyTo) -> Reply;

    /// The processes of the container.
    fn pids(&self, monitor: &Monitor) -> Vec<ProcessInfo>;

    /// The monitor's children that are not processes of the container.
    fn helpers(&self, monitor: &Monitor) -> Vec<u32>;

    /// What has to be known of a child before it is reaped.
    fn identify(&self, pid: Pid) -> Option<ProcessIdentity>;

    /// A child was reaped. Returns whether it was one of [`helpers`](Self::helpers); all that
    /// follows from its exit is then done.
    fn helper_exited(&self, monitor: &mut Monitor, pid: Pid, exit: &Exit) -> bool;

    /// A child was reaped that is not known, `identity` being what [`identify`](Self::identify)
    /// returned.
    fn unknown_child_exited(
        &self,
        monitor: &mut Monitor,
        pid: Pid,
        identity: Option<ProcessIdentity>,
        exit: Exit,
    );

    /// How long [`kill`](Self::kill) may take to send SIGKILL.
    fn kill_timeout(&self) -> Duration;

    /// How long [`delete`](Self::delete) may take.
    fn delete_timeout(&self) -> Duration;

    /// Deletes the container once its processes have exited. `false` as long as that is under way;
    /// it is called again when a child has been reaped.
    fn delete(&self, monitor: &mut Monitor) -> bool;
}
