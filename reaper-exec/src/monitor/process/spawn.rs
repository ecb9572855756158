//! Creating a process on the host: its streams, its cgroup, the fork.
//!
//! The child does the rest (`child.rs`) and waits on its start socket, a pair of which it has the
//! other end. That end is close-on-exec, so its closing tells the monitor that the program was
//! executed, or that the child has died.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use reaper_overlay::View;
use reaper_spec::{ContainerId, ExecId, ProcessSpec};

use super::state::{LiveProcess, Process};
use crate::{
    cgroup::{Cgroups, EXEC_LEAF, INIT_LEAF, Leaf},
    channel,
    child::{self, ChildHooks, ChildSetup},
    executor::Inherited,
    io::{BoundStdio, Streams},
    monitor::support::{
        config::MonitorConfig, connection::ReplyTo, deferred_streams::PendingStreams,
        descriptors::sort, states::ProcessState,
    },
    namespaces::{Namespace, PidNamespace},
    procfs,
    protocol::{Attached, Failure},
    seccomp::Filter,
    sys,
};

/// What a process is created from.
pub(crate) struct SpawnArgs<'a> {
    pub(crate) number: u64,
    pub(crate) config: &'a MonitorConfig,
    pub(crate) id: &'a ContainerId,
    pub(crate) namespace: &'a str,
    pub(crate) view: &'a dyn View,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) inherit: &'a Inherited,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) project_filter: Option<&'a Filter>,
    pub(crate) namespaces: &'a [Namespace],
    pub(crate) pids: &'a PidNamespace,
    pub(crate) holds_pids: bool,
    pub(crate) sysctls: &'a BTreeMap<String, String>,
    pub(crate) hooks: Option<ChildHooks<'a>>,
    pub(crate) exec: Option<ExecId>,
    pub(crate) process: &'a ProcessSpec,
    pub(crate) streams: Streams,
    pub(crate) attached: Attached,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) reply_to: ReplyTo,
}

/// Creates a process that waits for its start: opens its streams, adds its cgroup, forks.
pub(crate) fn spawn(mut args: SpawnArgs<'_>) -> Result<Process, Failure> {
    let descriptors = std::mem::take(&mut args.descriptors);
    let (attachments, preserved) = sort(args.attached, descriptors)?;
    let streams = std::mem::take(&mut args.streams);
    let streams = PendingStreams::new(args.process, streams, attachments);
    let mut stdio = streams.bind(args.config, args.id, args.namespace, None)?;
    let leaf = add_leaf(&args)?;
    let (pid, start_socket) = match fork(&args, &mut *stdio, leaf.as_ref(), preserved) {
        Ok(forked) => forked,
        Err(error) => {
            if let Some(leaf) = leaf {
                let _ = leaf.remove();
            }
            return Err(Failure::setup("fork", &error));
        }
    };
    // If this fails, dropping the start socket ends the child.
    let identity = procfs::identify(pid.as_raw().unsigned_abs())
        .map_err(|error| Failure::setup("read /proc", &error))?;
    let state = ProcessState::Creating {
        reply_to: args.reply_to,
        warnings: None,
    };
    let owner = args.reply_to.connection;
    Ok(Process {
        live: Some(LiveProcess { pid, identity }),
        start_socket: Some(start_socket),
        leaf,
        stdio,
        ..Process::new(args.number, args.exec, state, owner)
    })
}

fn add_leaf(args: &SpawnArgs<'_>) -> Result<Option<Leaf>, Failure> {
    let Some(cgroup) = args.cgroups.v2() else {
        return Ok(None);
    };
    let name = match &args.exec {
        Some(exec) => format!("{EXEC_LEAF}{exec}"),
        None => INIT_LEAF.to_owned(),
    };
    let leaf = cgroup.add_leaf(&name);
    leaf.map(Some)
        .map_err(|error| Failure::from_error("make the cgroup", &error))
}

fn fork(
    args: &SpawnArgs<'_>,
    stdio: &mut dyn BoundStdio,
    leaf: Option<&Leaf>,
    preserved: Vec<OwnedFd>,
) -> io::Result<(Pid, OwnedFd)> {
    let (ours, childs) = channel::pair()?;
    let child_stdio = stdio
        .take_child()
        .ok_or_else(|| io::Error::other("the binder made no streams"))?;
    let pids = args.pids.choose()?;
    let (pid, to_join) = match fork_into(leaf) {
        Ok((None, to_join)) => (None, to_join),
        // In the parent. A child that was forked ends with the socket if the choice cannot be taken back.
        forked => {
            pids.take_back()?;
            forked.map_err(|error| explain(args.pids, error))?
        }
    };
    let Some(pid) = pid else {
        // With a copy of the monitor's end the child would not see the monitor exit, and would keep the
        // connections of its clients open.
        drop(ours);
        let config = ChildSetup {
            process: args.process,
            view: args.view,
            first: args.exec.is_none(),
            leaf: to_join,
            v1_cgroups: args.cgroups.v1(),
            stdio: child_stdio,
            preserved,
            oom_score_adj: args.oom_score_adj,
            inherit: args.inherit,
            filter: args.filter,
            project_filter: args.project_filter,
            namespaces: args.namespaces,
            sysctls: args.sysctls,
            hooks: args.hooks,
            holds_pids: args.holds_pids,
        };
        child::run(config, childs)
    };
    fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((pid, ours))
}

/// The error of a fork; in a pid namespace whose first process has exited it is ENOMEM (pid_namespaces(7)).
fn explain(pids: &PidNamespace, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOMEM) if pids.is_private() => io::Error::other(format!(
            "the first process of the pid namespace may have exited: {error}"
        )),
        _ => error,
    }
}

/// Forks into the leaf by clone3(2) with `CLONE_INTO_CGROUP`. On kernels without that (before 5.7)
/// the child is returned the leaf, which it has to join.
fn fork_into(leaf: Option<&Leaf>) -> io::Result<(Option<Pid>, Option<&Leaf>)> {
    let Some(leaf) = leaf else {
        return Ok((sys::fork()?, None));
    };
    let folder = leaf.open_dir()?;
    match sys::fork_into(folder.as_fd()) {
        Ok(forked) => Ok((forked, None)),
        Err(error) if is_unsupported(&error) => Ok((sys::fork()?, Some(leaf))),
        // Of the pid namespace: see `explain`.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Err(error),
        Err(error) => Err(io::Error::other(leaf.refused(error).to_string())),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::E2BIG | libc::EINVAL | libc::EPERM)
    )
}
