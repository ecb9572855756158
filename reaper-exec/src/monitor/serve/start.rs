//! The start of the process.
//!
//! A monitor has one thread, for it forks. Started with a socket to its client as standard input,
//! it makes itself independent of the client: descriptors, session, working directory. Then it
//! serves the first request, which says what it is for: to be the monitor of a new container until
//! that is deleted, or to do one job that may block and exit.

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
        stat::{Mode, umask},
    },
    unistd::{chdir, setsid},
};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};

use super::cleanup::cleanup;
use crate::{
    channel,
    descriptors::close_range,
    executor::Inherited,
    monitor::{
        container::new_container::PendingMonitor,
        operations::create::create,
        support::{
            config::{MonitorConfig, NAME},
            connection::{Connection, ReplyTo, STARTER},
            node_cleanup::spawn_gc,
            oom_score::lower_oom_score,
            request::parse,
        },
    },
    procfs,
    protocol::{Failure, Request, Response},
    scheduling, selinux, sys,
};

/// The signals that a monitor passes on to init, if the client asked for that. All others ignore
/// them: they are sent to the process group of the client.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// The first descriptor that is not a standard stream.
const FIRST: RawFd = 3;

/// Runs a monitor. The socket to its client is its standard input.
pub(crate) fn serve(config: MonitorConfig) -> ! {
    sys::exit_now(match start(config) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{NAME}: {error}");
            1
        }
    })
}

fn start(config: MonitorConfig) -> io::Result<i32> {
    let starter = become_independent()?;
    let oom_score_adj = lower_oom_score();
    let signals = catch_signals()?;
    let identity = procfs::identify(std::process::id())?;
    let Some(message) = channel::receive(starter.as_fd())? else {
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
    let pending = PendingMonitor {
        config,
        identity,
        oom_score_adj,
        signals,
        starter: Connection::new(STARTER, starter),
        reply_to: ReplyTo {
            connection: STARTER,
            serial: request.envelope.serial,
        },
    };
    Ok(pending.serve(request.request, message.descriptors))
}

impl PendingMonitor {
    /// Serves the first request. Returns the exit code of the process.
    fn serve(mut self, call: Request, descriptors: Vec<OwnedFd>) -> i32 {
        let serial = self.reply_to.serial;
        let (inherit, label) = match &call {
            Request::Create(call) => {
                let label = call.process.labels.selinux_label.as_deref();
                (call.options.inherit.clone(), label)
            }
            _ => (Inherited::default(), None),
        };
        if let Err(failure) = shed(&inherit, label) {
            self.starter.reply(serial, Err(failure));
            return 0;
        }
        let isolation = &*self.config.isolation;
        match call {
            Request::Create(call) => match create(self, *call, descriptors) {
                Ok(monitor) => return monitor.run(),
                Err((mut starter, failure)) => starter.reply(serial, Err(failure)),
            },
            Request::Cleanup {
                id,
                dir,
                remove,
                kill,
            } => {
                let cleaned = cleanup(isolation, &self.identity, &id, &dir, remove, kill);
                self.starter.reply(serial, cleaned.map(Response::State));
            }
            Request::RemoveView(view) => {
                let removed = isolation.remove(&view).map(|()| Response::Done);
                let removed = removed
                    .map_err(|error| Failure::from_error("remove the filesystem view", &error));
                self.starter.reply(serial, removed);
            }
            Request::CollectGarbage(view) => {
                self.starter.reply(serial, Ok(Response::Done));
                spawn_gc(isolation, &view, self.oom_score_adj, None);
            }
            _ => self.starter.reply(serial, Err(Failure::NotFound)),
        }
        0
    }
}

/// Cuts the ties to the client but for the socket, which is returned.
fn become_independent() -> io::Result<OwnedFd> {
    // A pipe that the client has not marked close-on-exec would stay open for the life of the
    // container, and a process that reads from it would see no end of file.
    close_range(FIRST, RawFd::MAX)?;
    let starter = take_starter()?;
    setsid()?;
    chdir("/")?;
    prctl::set_child_subreaper(true)?;
    prctl::set_name(c"reaper-monitor")?;
    Ok(starter)
}

/// Moves the socket away from the standard streams, which become `/dev/null`.
fn take_starter() -> io::Result<OwnedFd> {
    let starter = io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(starter)
}

/// Gets rid of what this process has from its client, but for what the container shall take over:
/// the container's processes start with what the monitor has, also where an OCI runtime makes them. Their keyring
/// is for who has `label`.
fn shed(inherit: &Inherited, label: Option<&str>) -> Result<(), Failure> {
    /// What this process makes on the node is for all to read.
    const UMASK: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);
    umask(UMASK);
    // They stay where they are locked, which is a warning later on.
    let _ = set_capabilities_secure_bits(CapabilitiesSecureBits::empty());
    if !inherit.scheduling {
        scheduling::reset();
    }
    if inherit.session_keyring {
        return Ok(());
    }
    let joined = match label.filter(|_| selinux::is_enabled()) {
        None => sys::new_session_keyring(),
        Some(label) => selinux::label_keys(label, sys::new_session_keyring).map_err(|error| {
            Failure::setup(format!("give keys the SELinux label {label}"), &error)
        })?,
    };
    match joined {
        // There are no keyrings, or a filter keeps processes of the container from them too.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        joined => joined.map_err(|error| Failure::setup("start a session keyring", &error)),
    }
}

fn catch_signals() -> io::Result<SignalFd> {
    // An ignored SIGCHLD, which is inherited, would have the kernel reap the children.
    sys::default_sigchld()?;
    let mut caught: SigSet = FORWARDED.into_iter().collect();
    caught.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&caught), None)?;
    Ok(SignalFd::with_flags(
        &caught,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}
