//! What runs between the fork and the user's `execve`.
//!
//! The child is a copy of a single-threaded monitor, so ordinary code is allowed. It puts itself
//! into the state that the process spec asks for, reports over its start socket that it is ready,
//! and waits there for the start message. Its end of the socket is close-on-exec, so when that
//! closes the monitor knows that the program was executed, or that the child was killed.
//!
//! The steps are ordered by what each needs: the cgroup is joined first, so that all that follows
//! is accounted there; the view is entered before anything is looked up in it; the user is changed
//! last, since it takes the rights away that the other steps need.

mod capabilities;
mod descriptors;
mod filter;
mod hold;
mod hooks;
mod labels;
mod passwd;
mod program;
mod scheduling;
mod step;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, geteuid, setgid, setgroups, setsid, setuid},
};
use reaper_overlay::{View, in_view};
use reaper_spec::{ProcessSpec, Resource, Rlimit, User};
use rustix::{
    process::ioctl_tiocsctty,
    thread::{CapabilitiesSecureBits, capabilities_secure_bits},
};

pub(crate) use self::hooks::ChildHooks;
use self::{
    capabilities::Granted,
    labels::Labels,
    program::Program,
    step::{Failed, Step as _, from_error},
};
use crate::{
    cgroup::{Leaf, V1Cgroup},
    channel,
    executor::Inherited,
    io::ChildStdio,
    namespaces::{Namespace, set_parameters},
    protocol::ChildReport,
    seccomp::Filter,
    selinux, sys,
};

/// What the child gets from its monitor.
pub(crate) struct ChildSetup<'a> {
    pub(crate) process: &'a ProcessSpec,
    pub(crate) view: &'a dyn View,
    /// Whether this is the first process in the view.
    pub(crate) first: bool,
    /// The cgroup to join, unless the process was forked into it.
    pub(crate) leaf: Option<&'a Leaf>,
    /// The cgroups of version 1, which only a process itself can join.
    pub(crate) v1_cgroups: &'a [V1Cgroup],
    pub(crate) stdio: ChildStdio,
    pub(crate) preserved: Vec<OwnedFd>,
    /// The OOM adjustment of a process whose spec has none: the value that the monitor
    /// was started with, since it has lowered its own.
    pub(crate) oom_score_adj: Option<i32>,
    /// What the container takes over from the monitor's client.
    pub(crate) inherit: &'a Inherited,
    /// The system calls that it may make.
    pub(crate) filter: Option<&'a Filter>,
    /// Those that it may not make where a quota of a project limits it, unless it may set quotas.
    pub(crate) project_filter: Option<&'a Filter>,
    /// Those that it joins.
    pub(crate) namespaces: &'a [Namespace],
    /// What is set in them by the first process.
    pub(crate) sysctls: &'a BTreeMap<String, String>,
    /// Of the container's first process, if there are any.
    pub(crate) hooks: Option<ChildHooks<'a>>,
    /// It keeps its pid namespace, instead of executing a program.
    pub(crate) holds_pids: bool,
}

/// Sets up the process and executes its program. Never returns.
pub(crate) fn run(setup: ChildSetup<'_>, start_socket: OwnedFd) -> ! {
    let Ok(start_socket) = descriptors::move_above_stdio(start_socket, setup.preserved.len())
    else {
        sys::exit_now(127)
    };
    // Loading a filter needs no privilege with no_new_privs: then it is the last step before the
    // program. Otherwise it needs those that the process is about to lose.
    let at_last = setup.filter.filter(|_| setup.process.no_new_privileges);
    let hooks = setup.hooks;
    let holds_pids = setup.holds_pids;
    let report = prepare(setup, &start_socket)
        .and_then(|(program, warnings)| {
            wait_for_start(&start_socket, warnings, hooks, at_last)?;
            match holds_pids {
                true => hold::run(&start_socket),
                false => Ok(program.execute()),
            }
        })
        .unwrap_or_else(Into::into);
    // If this cannot be sent, the monitor reads the end of the socket.
    let _ = channel::send(start_socket.as_fd(), &report, &[]);
    sys::exit_now(127)
}

/// Puts the process into the state that its spec asks for, in the order that the module's docs give. Returns its
/// program, and what is not as the spec says.
fn prepare(
    setup: ChildSetup<'_>,
    start_socket: &OwnedFd,
) -> Result<(Program, Vec<String>), Failed> {
    // Until what is the monitor's is closed, processes in the view must not reach it by way of
    // /proc (ptrace(2), "dumpable"). As an ordinary user it would keep this one from its own files.
    let guarded = geteuid().is_root();
    if guarded {
        prctl::set_dumpable(false).step("keep the monitor's files from others")?;
    }
    let mut warnings = Vec::new();
    join(&setup)?;
    set_attributes(&setup, &mut warnings)?;
    if let (Some(label), ChildStdio::Terminal(terminal)) =
        (&setup.process.labels.mount_label, &setup.stdio)
    {
        // Policies say which labels may be on a terminal.
        let labelled = selinux::label_file(label, terminal);
        warnings.extend(labelled.err().map(|error| {
            format!("the terminal was not labelled {label} ({error}): it has the node's label")
        }));
    }
    let labels = Labels::open(&setup.process.labels)?;
    if setup.hooks.is_some() {
        // What cannot be had is to be known before hooks have done anything.
        Labels::try_out(&setup.process.labels)?;
    }
    enter_view(&setup, start_socket)?;
    labels.give()?;
    let ChildSetup {
        process,
        view,
        stdio,
        preserved,
        inherit,
        filter,
        project_filter,
        ..
    } = setup;
    let environment = passwd::environment(process, &view.environment(), preserved.len());
    let terminal = matches!(stdio, ChildStdio::Terminal(_));
    descriptors::install(stdio, preserved, start_socket).step("install the streams")?;
    if guarded {
        prctl::set_dumpable(true).step("have files of its own")?;
    }
    if terminal {
        ioctl_tiocsctty(io::stdin()).step("take the controlling terminal")?;
    }
    for limit in &process.rlimits {
        set_limit(limit)?;
    }
    // A spec's filter may forbid to load another one.
    if let Some(filter) = project_filter.filter(|_| !capabilities::may_set_quotas(process)) {
        let loaded = sys::load_filter(&filter.program, filter.flags);
        loaded.step("load the filter that keeps the projects of files")?;
    }
    let filter = filter.filter(|_| !process.no_new_privileges);
    drop_privileges(process, inherit, filter, start_socket, &mut warnings)?;
    // After setuid(2), which clears it (prctl(2)).
    prctl::set_pdeathsig(NixSignal::SIGKILL).step("ask for a signal at the monitor's death")?;
    let program = Program::new(process, environment).step("read the arguments")?;
    // Without this, ps(1) shows the monitor's name until the program is executed.
    let _ = prctl::set_name(program.short_name());
    Ok((program, warnings))
}

/// Joins the cgroups and the namespaces, and sets the parameters of those that are new.
fn join(setup: &ChildSetup<'_>) -> Result<(), Failed> {
    if let Some(leaf) = setup.leaf {
        leaf.join_self()
            .map_err(|error| from_error("join the cgroup", &error))?;
    }
    for cgroup in setup.v1_cgroups {
        cgroup
            .join_self()
            .map_err(|error| from_error("join the cgroup", &error))?;
    }
    for namespace in setup.namespaces {
        namespace.join()?;
    }
    if setup.first {
        set_parameters(setup.sysctls)?;
    }
    Ok(())
}

/// Sets what the kernel keeps of a process beside its files and credentials: signals, scheduling,
/// session, OOM adjustment.
fn set_attributes(setup: &ChildSetup<'_>, warnings: &mut Vec<String>) -> Result<(), Failed> {
    let process = setup.process;
    reset_signals().step("reset the signals")?;
    if setup.first {
        let ignored = setup.inherit.ignored_signals.iter();
        ignored.for_each(|signal| sys::ignore(signal.number()));
    }
    if capabilities_secure_bits() != Ok(CapabilitiesSecureBits::empty()) {
        warnings.push("the securebits of the caller are locked and stay".to_owned());
    }
    scheduling::set(&process.scheduling, setup.first)?;
    setsid().step("start a session")?;
    if let Some(adjustment) = process.oom_score_adj.or(setup.oom_score_adj) {
        // A lower value needs CAP_SYS_RESOURCE, which Reaper may run without.
        const FILE: &str = "/proc/self/oom_score_adj";
        let written = std::fs::write(FILE, adjustment.to_string());
        if let (Err(error), Some(_)) = (written, process.oom_score_adj) {
            let left = std::fs::read_to_string(FILE).unwrap_or_default();
            warnings.push(format!(
                "oomScoreAdj {adjustment} was refused ({error}): it is {}",
                left.trim()
            ));
        }
    }
    Ok(())
}

/// Enters the filesystem view, and runs the hooks that are due inside it.
fn enter_view(setup: &ChildSetup<'_>, start_socket: &OwnedFd) -> Result<(), Failed> {
    let hooks = setup.hooks;
    let runtime_root = hooks.map(ChildHooks::runtime_root).transpose()?.flatten();
    let entered = match setup.first {
        true => setup.view.enter_init(),
        false => setup.view.enter_exec(),
    };
    entered.map_err(|error| from_error("enter the filesystem view", &error))?;
    // Before all that is open is closed by its number.
    if let Some(hooks) = hooks {
        hooks.at_creation(start_socket, runtime_root)?;
    }
    Ok(())
}

/// Enters the working directory and becomes the user, with the spec's capabilities and no others.
/// Loads `filter` while there is the privilege that it needs.
fn drop_privileges(
    process: &ProcessSpec,
    inherit: &Inherited,
    filter: Option<&Filter>,
    start_socket: &OwnedFd,
    warnings: &mut Vec<String>,
) -> Result<(), Failed> {
    let entered = in_view::change_dir(&process.cwd);
    let granted = process.capabilities.as_ref();
    let granted = granted.map(|wanted| Granted::of(wanted, warnings));
    let granted = granted.transpose()?;
    if let Some(filter) = filter {
        filter::load(filter, start_socket)?;
    }
    if let Some(granted) = &granted {
        granted.reduce_bounding()?;
    }
    become_user(process.user.as_ref(), inherit.umask)?;
    let entered = match entered {
        // The directory may be open to the user only, for example on NFS with root squashed.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            in_view::change_dir(&process.cwd)
        }
        entered => entered,
    };
    entered.map_err(|error| cannot_enter(&process.cwd, error))?;
    if let Some(granted) = &granted {
        granted.apply()?;
    }
    if process.no_new_privileges {
        prctl::set_no_new_privs().step("set no_new_privs")?;
    }
    Ok(())
}

/// The error of a working directory, with what denies it to the process's user.
fn cannot_enter(dir: &Path, source: io::Error) -> Failed {
    let denial = match source.kind() {
        io::ErrorKind::PermissionDenied => in_view::denial(dir),
        _ => None,
    };
    let denied = denial.map_or_else(String::new, |denial| {
        format!(", denied to user {} by {denial}", geteuid())
    });
    let step = format!("enter the directory {}{denied}", dir.display());
    Failed { step, source }
}

fn reset_signals() -> io::Result<()> {
    sys::default_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

fn set_limit(limit: &Rlimit) -> Result<(), Failed> {
    use rustix::process::{Resource as Kernel, Rlimit as KernelLimit};
    let resource = match limit.resource {
        Resource::AddressSpace => Kernel::As,
        Resource::Core => Kernel::Core,
        Resource::Cpu => Kernel::Cpu,
        Resource::Data => Kernel::Data,
        Resource::FileSize => Kernel::Fsize,
        Resource::Locks => Kernel::Locks,
        Resource::LockedMemory => Kernel::Memlock,
        Resource::MessageQueue => Kernel::Msgqueue,
        Resource::Nice => Kernel::Nice,
        Resource::OpenFiles => Kernel::Nofile,
        Resource::Processes => Kernel::Nproc,
        Resource::ResidentSet => Kernel::Rss,
        Resource::RealtimePriority => Kernel::Rtprio,
        Resource::RealtimeTime => Kernel::Rttime,
        Resource::PendingSignals => Kernel::Sigpending,
        Resource::Stack => Kernel::Stack,
    };
    let value = |value: u64| (value != u64::MAX).then_some(value);
    let wanted = KernelLimit {
        current: value(limit.soft),
        maximum: value(limit.hard),
    };
    rustix::process::setrlimit(resource, wanted).step(format!("set {}", limit.resource))
}

/// Changes groups and user. The user is last, since changing groups needs its rights.
fn become_user(user: Option<&User>, inherited_umask: Option<u32>) -> Result<(), Failed> {
    /// What OCI runtimes use where the spec is silent.
    const DEFAULT_UMASK: u32 = 0o022;
    if let Some(user) = user {
        let groups: Vec<Gid> = user
            .additional_gids
            .iter()
            .copied()
            .map(Gid::from_raw)
            .collect();
        set_groups(&groups).step("set the supplementary groups")?;
        let become_group = setgid(Gid::from_raw(user.gid));
        become_group.step(becoming(become_group, "group", user.gid))?;
        let become_user = setuid(Uid::from_raw(user.uid));
        become_user.step(becoming(become_user, "user", user.uid))?;
    }
    let named = user.and_then(|user| user.umask).or(inherited_umask);
    let mask = named.unwrap_or(DEFAULT_UMASK);
    umask(Mode::from_bits_truncate(mask));
    Ok(())
}

/// The step of becoming a user or group, with the reason if the user namespace does not map it
/// (EINVAL).
fn becoming(result: nix::Result<()>, kind: &str, id: u32) -> String {
    let unknown = match result {
        Err(Errno::EINVAL) => ", whom the container's user namespace does not have",
        _ => "",
    };
    format!("become {kind} {id}{unknown}")
}

/// Sets the supplementary groups. Without root that is not permitted; a process that asks for none
/// then keeps the caller's.
fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    match setgroups(groups) {
        Err(Errno::EPERM) if groups.is_empty() && !may_set_groups() => Ok(()),
        other => other,
    }
}

/// Whether this process may call setgroups(2): as root, in a user namespace that does not deny it.
fn may_set_groups() -> bool {
    let denied = std::fs::read("/proc/self/setgroups").is_ok_and(|text| text == b"deny\n");
    geteuid().is_root() && !denied
}

/// Reports that the process is ready, waits for the start message, and does what comes right before the program.
fn wait_for_start(
    start_socket: &OwnedFd,
    warnings: Vec<String>,
    hooks: Option<ChildHooks<'_>>,
    filter: Option<&Filter>,
) -> Result<(), Failed> {
    channel::send(start_socket.as_fd(), &ChildReport::Ready { warnings }, &[])
        .step("report to the monitor")?;
    let go = channel::receive(start_socket.as_fd()).step("wait at the gate")?;
    // Without one the monitor has exited, and no other process can start this one.
    let go = go.unwrap_or_else(|| sys::exit_now(127));
    for (fd, number) in go.descriptors.iter().zip(0..3) {
        sys::duplicate_onto(fd.as_raw_fd(), number).step("take over the streams")?;
    }
    if let Some(hooks) = hooks {
        hooks.at_start(start_socket)?;
    }
    if let Some(filter) = filter {
        filter::load(filter, start_socket)?;
    }
    Ok(())
}
