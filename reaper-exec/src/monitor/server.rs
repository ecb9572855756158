//! The monitor's own start, and what it holds.

use std::{
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{chdir, setsid},
};
use reaper_overlay::{View, ViewRequest};
use reaper_spec::{ContainerId, Exit, ProcessIdentity};
use reaper_state::ContainerDir;

use super::{
    NAME, Setup, birth, bury,
    connection::{Connection, ReplyTo},
    end::Ending,
    freeze::Freezing,
    housekeeping,
    process::Process,
    runtime::Runtime,
};
use crate::{
    cgroup::ContainerCgroup,
    channel,
    executor::MonitorOptions,
    procfs,
    protocol::{Answer, Call, Envelope, Failure, Request, Response, VERSION},
    sys,
};

/// What a lower adjustment makes the OOM killer choose last, short of never.
pub(super) const OOM_SCORE_ADJ: &str = "-999";

/// Where a process finds and sets its adjustment.
pub(super) const OWN_OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// The signals that a monitor which mirrors its workload passes on. A monitor that does not
/// ignores them: they are for whoever started it.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// The first descriptor that a program is not told about.
const FIRST_UNKNOWN: RawFd = 3;

/// The number of the connection to whoever started the monitor.
pub(super) const STARTER: u64 = 0;

/// Where the container is.
pub(super) enum Phase {
    /// Init has not ended.
    Alive,
    /// Init has ended, what it started is being ended.
    Ending(Ending),
    /// All has ended, which is recorded.
    Ended(Exit),
    /// The container could not be made, and nothing of it is left.
    Aborted,
}

/// A container and its clients.
pub(super) struct Monitor {
    pub(super) setup: Setup,
    pub(super) id: ContainerId,
    pub(super) namespace: String,
    pub(super) dir: ContainerDir,
    pub(super) options: MonitorOptions,
    pub(super) identity: ProcessIdentity,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) signals: SignalFd,
    pub(super) listener: OwnedFd,
    pub(super) connections: Vec<Connection>,
    pub(super) next_connection: u64,
    /// There was no descriptor for another client.
    pub(super) deaf: bool,
    pub(super) view_request: ViewRequest,
    pub(super) view: Box<dyn View>,
    pub(super) cgroup: Option<ContainerCgroup>,
    /// What makes and ends the container, if it is not the monitor itself.
    pub(super) runtime: Option<Runtime>,
    /// Init first, for the whole life of the monitor.
    pub(super) processes: Vec<Process>,
    pub(super) next_process: u64,
    pub(super) phase: Phase,
    pub(super) freezing: Option<Freezing>,
    pub(super) frozen: bool,
    /// The client that has deleted the container.
    pub(super) deleted_for: Option<u64>,
    /// The most CPU time that was ever told, user mode and kernel.
    pub(super) cpu_ns: (u64, u64),
}

/// What a monitor has before it knows its container.
pub(super) struct Newborn {
    pub(super) setup: Setup,
    pub(super) identity: ProcessIdentity,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) signals: SignalFd,
    pub(super) starter: Connection,
    pub(super) reply_to: ReplyTo,
}

/// Runs a monitor. The socket to its starter is its standard input.
pub(super) fn serve(setup: Setup) -> ! {
    sys::exit_now(match start(setup) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{NAME}: {error}");
            1
        }
    })
}

fn start(setup: Setup) -> io::Result<i32> {
    // A pipe that the starter forgot to mark close-on-exec would stay open as long as the
    // container, and whoever reads from it would wait as long.
    sys::close_range(FIRST_UNKNOWN, RawFd::MAX)?;
    let starter = take_starter()?;
    setsid()?;
    chdir("/")?;
    prctl::set_child_subreaper(true)?;
    prctl::set_name(c"reaper-monitor")?;
    let oom_score_adj = lower_oom_score();
    let signals = catch_signals()?;
    let identity = procfs::identify(std::process::id())?;
    let Some(mut message) = channel::receive(starter.as_fd())? else {
        return Ok(0);
    };
    fcntl(&starter, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let request = match parse(&message) {
        Ok(request) => request,
        Err(response) => {
            channel::send(starter.as_fd(), &*response, &[])?;
            return Ok(1);
        }
    };
    let serial = request.envelope.serial;
    let mut newborn = Newborn {
        setup,
        identity,
        oom_score_adj,
        signals,
        starter: Connection::new(STARTER, starter),
        reply_to: ReplyTo {
            connection: STARTER,
            serial,
        },
    };
    match request.call {
        Call::Create(call) => {
            let descriptors = std::mem::take(&mut message.descriptors);
            match birth::create(newborn, *call, descriptors) {
                Ok(monitor) => return Ok(monitor.run()),
                Err((starter, failure)) => newborn_failed(starter, serial, failure),
            }
        }
        Call::Bury { id, dir, forget } => {
            let isolation = &*newborn.setup.isolation;
            let buried = bury::bury(isolation, &newborn.identity, &id, &dir, forget);
            newborn.starter.reply(serial, buried.map(Answer::Observed));
        }
        Call::Forget(view) => {
            let forgotten = newborn.setup.isolation.forget(&view);
            let answer = forgotten.map(|()| Answer::Done);
            let answer =
                answer.map_err(|error| Failure::from_error("remove the filesystem view", &error));
            newborn.starter.reply(serial, answer);
        }
        Call::Housekeep(view) => {
            newborn.starter.reply(serial, Ok(Answer::Done));
            let isolation = &*newborn.setup.isolation;
            housekeeping::leave_to_child(isolation, &view, newborn.oom_score_adj, None);
        }
        _ => newborn_failed(newborn.starter, serial, Failure::NotFound),
    }
    Ok(0)
}

fn newborn_failed(mut starter: Connection, serial: u64, failure: Failure) {
    starter.reply(serial, Err(failure));
}

/// Moves the socket out of the way of the standard streams, which become `/dev/null`.
fn take_starter() -> io::Result<OwnedFd> {
    let starter = io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(starter)
}

/// Returns what the adjustment was, if it was changed: the workload gets that.
fn lower_oom_score() -> Option<i32> {
    let before = std::fs::read_to_string(OWN_OOM_SCORE_ADJ);
    let before = before.ok()?.trim().parse().ok()?;
    // Without CAP_SYS_RESOURCE it is refused; the monitor is then as likely a victim as others.
    std::fs::write(OWN_OOM_SCORE_ADJ, OOM_SCORE_ADJ).ok()?;
    Some(before)
}

fn catch_signals() -> io::Result<SignalFd> {
    // If the starter ignores SIGCHLD, and that is inherited, no child's end could be waited for.
    sys::default_sigchld()?;
    let mut caught: SigSet = FORWARDED.into_iter().collect();
    caught.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&caught), None)?;
    Ok(SignalFd::with_flags(
        &caught,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// Parses a request; what cannot be parsed is answered with the reason.
pub(super) fn parse(message: &channel::Message) -> Result<Request, Box<Response>> {
    let refuse = |serial, reason| {
        Box::new(Response {
            serial,
            answer: Err(Failure::Refused { reason }),
        })
    };
    let Envelope { version, serial } = message
        .parse()
        .map_err(|error| refuse(0, format!("the request is garbage: {error}")))?;
    if version > VERSION {
        let reason = format!(
            "the request is of protocol version {version}, this monitor speaks up to {VERSION}: \
             it was started by an older Reaper"
        );
        return Err(refuse(serial, reason));
    }
    message
        .parse()
        .map_err(|error| refuse(serial, format!("the request is not known: {error}")))
}

impl Monitor {
    /// The process itself, then those that were exec'd.
    pub(super) fn init(&mut self) -> &mut Process {
        &mut self.processes[0]
    }

    /// The place of a process in the list now.
    pub(super) fn numbered(&self, number: u64) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.number == number)
    }

    pub(super) fn connection(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|known| known.number == number)
    }

    /// Answers a client, unless it is gone.
    pub(super) fn reply(&mut self, to: ReplyTo, answer: Result<Answer, Failure>) -> bool {
        let connection = self.connection(to.connection);
        connection.is_some_and(|connection| {
            connection.reply(to.serial, answer);
            !connection.is_closed()
        })
    }

    /// Notes what nobody asked about.
    pub(super) fn log(&self, message: &str) {
        note(self.options.log.as_deref(), self.id.as_str(), message);
    }
}

/// Writes a line about the container `id` to the monitors' log, if there is one.
pub(super) fn note(log: Option<&Path>, id: &str, message: &str) {
    let Some(path) = log else {
        return;
    };
    // A FIFO that nobody reads must not hold up the monitor.
    let file = std::fs::File::options()
        .append(true)
        .create(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    if let Ok(mut file) = file {
        let now = reaper_spec::Timestamp::now();
        let _ = writeln!(file, "{now} {NAME} {id}: {message}");
    }
}
