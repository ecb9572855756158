//! SpawnArgs a process: its streams, its cgroup, the fork.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use reaper_overlay::View;
use reaper_spec::{ContainerId, ExecId, ProcessSpec};

use super::state::{LiveProcess, Process};
use crate::{
    cgroup::{ContainerCgroup, Leaf},
    channel,
    child::{self, ChildSetup},
    io::{BindRequest, BoundStdio, StdioRequest, Streams},
    monitor::support::{
        connection::ReplyTo, descriptors::sort, setup::Setup, states::ProcessState,
    },
    procfs,
    protocol::{Attached, Failure},
    sys,
};

/// The leaf of init in a container's cgroup.
const INIT_LEAF: &str = "init";

/// What a process is made of.
pub(crate) struct SpawnArgs<'a> {
    pub(crate) number: u64,
    pub(crate) setup: &'a Setup,
    pub(crate) id: &'a ContainerId,
    pub(crate) namespace: &'a str,
    pub(crate) view: &'a dyn View,
    pub(crate) cgroup: Option<&'a ContainerCgroup>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) exec: Option<ExecId>,
    pub(crate) process: &'a ProcessSpec,
    pub(crate) streams: Streams,
    pub(crate) attached: Attached,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) reply_to: ReplyTo,
}

/// Opens the streams, makes the leaf, forks.
pub(crate) fn spawn(mut args: SpawnArgs<'_>) -> Result<Process, Failure> {
    let descriptors = std::mem::take(&mut args.descriptors);
    let (attachments, preserved) = sort(args.attached, descriptors)?;
    let streams = std::mem::take(&mut args.streams);
    let user = args.process.user.as_ref();
    let mut stdio = args
        .setup
        .binder
        .bind(BindRequest {
            id: args.id,
            namespace: args.namespace,
            stdio: StdioRequest {
                streams,
                attachments,
            },
            terminal: args.process.terminal.then_some(args.process.console_size),
            master: None,
            owner: user.map(|user| (user.uid, user.gid)),
        })
        .map_err(|error| Failure::from_error("open the streams", &error))?;
    let leaf_name = args
        .exec
        .as_ref()
        .map_or(INIT_LEAF.to_owned(), |exec| format!("exec-{exec}"));
    let leaf = match args.cgroup {
        Some(cgroup) => Some(
            cgroup
                .add_leaf(&leaf_name)
                .map_err(|error| Failure::from_error("make the cgroup", &error))?,
        ),
        None => None,
    };
    let forked = fork(&args, &mut *stdio, leaf.as_ref(), preserved);
    let (pid, start_socket) = match forked {
        Ok(forked) => forked,
        Err(error) => {
            if let Some(leaf) = leaf {
                let _ = leaf.remove();
            }
            return Err(Failure::setup("fork", &error));
        }
    };
    let number = u32::try_from(pid.as_raw()).unwrap_or_default();
    // Without its start_socket a child that cannot be looked at ends by itself.
    let identity =
        procfs::identify(number).map_err(|error| Failure::setup("read /proc", &error))?;
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
    let (forked, to_join) = fork_into(leaf)?;
    let Some(pid) = forked else {
        let setup = ChildSetup {
            process: args.process,
            view: args.view,
            first: args.exec.is_none(),
            leaf: to_join,
            stdio: child_stdio,
            preserved,
            oom_score_adj: args.oom_score_adj,
        };
        child::run(setup, childs)
    };
    fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((pid, ours))
}

/// Forks into the leaf, or, on kernels that cannot do that, beside it: the child then gets the
/// leaf that it has to join.
fn fork_into(leaf: Option<&Leaf>) -> io::Result<(Option<Pid>, Option<&Leaf>)> {
    let Some(leaf) = leaf else {
        return Ok((sys::fork()?, None));
    };
    let folder = leaf.open_dir()?;
    match sys::fork_into(folder.as_fd()) {
        Ok(forked) => Ok((forked, None)),
        Err(error) if unknown_to_the_kernel(&error) => Ok((sys::fork()?, Some(leaf))),
        Err(error) => Err(io::Error::other(leaf.refused(error).to_string())),
    }
}

fn unknown_to_the_kernel(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::E2BIG | libc::EINVAL)
    )
}
