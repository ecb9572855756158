//! The monitor's own start.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd, RawFd},
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

use super::cleanup::cleanup;
use crate::{
    channel,
    monitor::{
        container::new_container::PendingMonitor,
        operations::create::create,
        support::{
            connection::{Connection, ReplyTo, STARTER},
            node_cleanup::spawn_gc,
            oom_score::lower_oom_score,
            request::parse,
            setup::{NAME, Setup},
        },
    },
    procfs,
    protocol::{Answer, Call, Failure},
    sys,
};

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

/// Runs a monitor. The socket to its starter is its standard input.
pub(crate) fn serve(setup: Setup) -> ! {
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
    let mut pending = PendingMonitor {
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
            match create(pending, *call, descriptors) {
                Ok(monitor) => return Ok(monitor.run()),
                Err((starter, failure)) => startup_failed(starter, serial, failure),
            }
        }
        Call::Cleanup { id, dir, remove } => {
            let isolation = &*pending.setup.isolation;
            let cleaned = cleanup(isolation, &pending.identity, &id, &dir, remove);
            pending.starter.reply(serial, cleaned.map(Answer::Observed));
        }
        Call::RemoveView(view) => {
            let forgotten = pending.setup.isolation.forget(&view);
            let answer = forgotten.map(|()| Answer::Done);
            let answer =
                answer.map_err(|error| Failure::from_error("remove the filesystem view", &error));
            pending.starter.reply(serial, answer);
        }
        Call::CollectGarbage(view) => {
            pending.starter.reply(serial, Ok(Answer::Done));
            let isolation = &*pending.setup.isolation;
            spawn_gc(isolation, &view, pending.oom_score_adj, None);
        }
        _ => startup_failed(pending.starter, serial, Failure::NotFound),
    }
    Ok(0)
}

fn startup_failed(mut starter: Connection, serial: u64, failure: Failure) {
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
