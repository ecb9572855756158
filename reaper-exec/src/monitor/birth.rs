//! Making the container, and processes in it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use reaper_overlay::View;
use reaper_spec::{ContainerId, ExecId, ProcessSpec};
use reaper_state::ContainerDir;

use super::{
    Setup,
    connection::{Connection, ReplyTo},
    plan::{plan_cgroup, remove, remove_traces, write_plan},
    process::{Body, Process, Stage},
    runtime::{Image, Runtime, make_init},
    server::{Monitor, Newborn, Phase, STARTER},
};
use crate::{
    cgroup::{ContainerCgroup, Leaf},
    channel,
    child::{self, Childhood},
    io::{Attachments, BindRequest, BoundStdio, StdioRequest, Streams},
    procfs,
    protocol::{Attached, CreateCall, ExecCall, Failure, Plan, VERSION},
    sys,
};

/// The leaf of init in a container's cgroup.
const INIT_LEAF: &str = "init";

/// The number of init among the processes.
pub(super) const INIT: u64 = 0;

/// What a process is made of.
struct Making<'a> {
    number: u64,
    setup: &'a Setup,
    id: &'a ContainerId,
    namespace: &'a str,
    view: &'a dyn View,
    cgroup: Option<&'a ContainerCgroup>,
    oom_score_adj: Option<i32>,
    exec: Option<ExecId>,
    process: &'a ProcessSpec,
    streams: Streams,
    attached: Attached,
    descriptors: Vec<OwnedFd>,
    reply_to: ReplyTo,
}

/// Makes the container. On failure nothing is left of it, and the starter gets its connection
/// back to be told.
pub(super) fn create(
    newborn: Newborn,
    mut call: CreateCall,
    descriptors: Vec<OwnedFd>,
) -> Result<Monitor, (Connection, Failure)> {
    let Newborn {
        mut setup,
        identity,
        oom_score_adj,
        signals,
        starter,
        reply_to,
    } = newborn;
    let dir = ContainerDir::at(&call.dir);
    let streams = std::mem::take(&mut call.streams);
    let user = call.process.user.as_ref();
    call.view.user = user.map(|user| (user.uid, user.gid));
    let mut made = Made {
        dir: dir.clone(),
        cgroup: None,
        view: None,
        runtime: None,
    };
    if call.runtime.is_some() {
        setup.isolation = Box::new(Image);
    }
    let attempt = || -> Result<(OwnedFd, Process), Failure> {
        let cgroup = plan_cgroup(&call)?;
        // What an earlier container of this id left is no end of this one.
        remove(&dir.exit_file())?;
        remove(&dir.socket())?;
        let plan = Plan {
            version: VERSION,
            monitor: identity.clone(),
            view: call.view.clone(),
            cgroup: match &cgroup {
                Some((hierarchy, path)) => Some(
                    ContainerCgroup::unpopulated(hierarchy, path)
                        .map_err(|error| Failure::from_error("make the cgroup", &error))?,
                ),
                None => None,
            },
            runtime: call.runtime.clone(),
        };
        write_plan(&dir, &plan)?;
        if let Some((hierarchy, path)) = cgroup {
            made.cgroup = Some(
                ContainerCgroup::create(&hierarchy, &path)
                    .map_err(|error| Failure::from_error("make the cgroup", &error))?,
            );
        }
        made.view = Some(
            setup
                .isolation
                .prepare(&call.view)
                .map_err(|error| Failure::from_error("prepare the filesystem view", &error))?,
        );
        let listener = channel::listen(&dir.socket())
            .map_err(|error| Failure::setup("listen on the monitor's socket", &error))?;
        if let Some(driven) = call.runtime.clone() {
            let adjustment = call.process.oom_score_adj.or(oom_score_adj);
            let runtime = Runtime::new(driven, &call, oom_score_adj.and(adjustment))?;
            let runtime = made.runtime.insert(runtime);
            let init = make_init(runtime, &setup, &call, streams, descriptors, reply_to)?;
            return Ok((listener, init));
        }
        let view = made.view.as_deref().expect("it was just prepared");
        let init = make(Making {
            number: INIT,
            setup: &setup,
            id: &call.id,
            namespace: &call.namespace,
            view,
            cgroup: made.cgroup.as_ref(),
            oom_score_adj,
            exec: None,
            process: &call.process,
            streams,
            attached: call.attached,
            descriptors,
            reply_to,
        })?;
        Ok((listener, init))
    };
    match attempt() {
        Ok((listener, init)) => Ok(Monitor {
            setup,
            id: call.id,
            namespace: call.namespace,
            dir,
            options: call.options,
            identity,
            oom_score_adj,
            signals,
            listener,
            connections: vec![starter],
            next_connection: STARTER + 1,
            deaf: false,
            view_request: call.view,
            view: made.view.expect("init was made in it"),
            cgroup: made.cgroup,
            runtime: made.runtime,
            processes: vec![init],
            next_process: INIT + 1,
            phase: Phase::Alive,
            freezing: None,
            frozen: false,
            deleted_for: None,
            cpu_ns: (0, 0),
        }),
        Err(failure) => {
            made.undo();
            Err((starter, failure))
        }
    }
}

/// What was made so far.
struct Made {
    dir: ContainerDir,
    cgroup: Option<ContainerCgroup>,
    view: Option<Box<dyn View>>,
    runtime: Option<Runtime>,
}

impl Made {
    /// The reason for undoing is what the caller is told; what cannot be undone is found again by
    /// whoever uses the id next.
    fn undo(self) {
        if let Some(mut view) = self.view {
            let _ = view.release();
        }
        if let Some(cgroup) = self.cgroup {
            let _ = cgroup.remove();
        }
        if let Some(runtime) = self.runtime {
            runtime.remove_files();
        }
        remove_traces(&self.dir);
    }
}

impl Monitor {
    /// Makes an exec'd process.
    pub(super) fn make_exec(
        &mut self,
        call: ExecCall,
        descriptors: Vec<OwnedFd>,
        reply_to: ReplyTo,
    ) -> Result<(), Failure> {
        if self.runtime.is_some() {
            return self.keep_exec(call, descriptors, reply_to);
        }
        let number = self.next_process;
        self.next_process += 1;
        let mut process = make(Making {
            number,
            setup: &self.setup,
            id: &self.id,
            namespace: &self.namespace,
            view: &*self.view,
            cgroup: self.cgroup.as_ref(),
            oom_score_adj: self.oom_score_adj,
            exec: Some(call.exec),
            process: &call.process,
            streams: call.streams,
            attached: call.attached,
            descriptors,
            reply_to,
        })?;
        process.tied = call.tied;
        self.processes.push(process);
        Ok(())
    }
}

/// Opens the streams, makes the leaf, forks.
fn make(mut making: Making<'_>) -> Result<Process, Failure> {
    let descriptors = std::mem::take(&mut making.descriptors);
    let (attachments, preserved) = sort(making.attached, descriptors)?;
    let streams = std::mem::take(&mut making.streams);
    let user = making.process.user.as_ref();
    let mut stdio = making
        .setup
        .binder
        .bind(BindRequest {
            id: making.id,
            namespace: making.namespace,
            stdio: StdioRequest {
                streams,
                attachments,
            },
            terminal: making
                .process
                .terminal
                .then_some(making.process.console_size),
            master: None,
            owner: user.map(|user| (user.uid, user.gid)),
        })
        .map_err(|error| Failure::from_error("open the streams", &error))?;
    let leaf_name = making
        .exec
        .as_ref()
        .map_or(INIT_LEAF.to_owned(), |exec| format!("exec-{exec}"));
    let leaf = match making.cgroup {
        Some(cgroup) => Some(
            cgroup
                .add_leaf(&leaf_name)
                .map_err(|error| Failure::from_error("make the cgroup", &error))?,
        ),
        None => None,
    };
    let forked = fork(&making, &mut *stdio, leaf.as_ref(), preserved);
    let (pid, gate) = match forked {
        Ok(forked) => forked,
        Err(error) => {
            if let Some(leaf) = leaf {
                let _ = leaf.remove();
            }
            return Err(Failure::setup("fork", &error));
        }
    };
    let number = u32::try_from(pid.as_raw()).unwrap_or_default();
    // Without its gate a child that cannot be looked at ends by itself.
    let identity =
        procfs::identify(number).map_err(|error| Failure::setup("read /proc", &error))?;
    let stage = Stage::Preparing {
        reply_to: making.reply_to,
        warnings: None,
    };
    let owner = making.reply_to.connection;
    Ok(Process {
        body: Some(Body { pid, identity }),
        gate: Some(gate),
        leaf,
        stdio,
        ..Process::new(making.number, making.exec, stage, owner)
    })
}

fn fork(
    making: &Making<'_>,
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
        let childhood = Childhood {
            process: making.process,
            view: making.view,
            first: making.exec.is_none(),
            leaf: to_join,
            stdio: child_stdio,
            preserved,
            oom_score_adj: making.oom_score_adj,
        };
        child::run(childhood, childs)
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

/// Tells apart what came with a message.
pub(super) fn sort(
    attached: Attached,
    descriptors: Vec<OwnedFd>,
) -> Result<(Attachments, Vec<OwnedFd>), Failure> {
    let mut descriptors = descriptors.into_iter();
    let mut next = |wanted: bool| if wanted { descriptors.next() } else { None };
    let inherited = attached.inherited.map(&mut next);
    let console_socket = next(attached.console_socket);
    let preserved: Vec<OwnedFd> = descriptors.collect();
    if preserved.len() != attached.preserved as usize {
        let reason = "descriptors are missing from the request".to_owned();
        return Err(Failure::Refused { reason });
    }
    Ok((
        Attachments {
            inherited,
            console_socket,
        },
        preserved,
    ))
}
