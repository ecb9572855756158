//! What a process of this program does that stands for a process of a container: it lies in the
//! container's namespaces, passes signals on, and ends as that process does.
//!
//! It is what a pid file names. An engine can wait for it, and enters by it what the container sees
//! (`podman cp`, `nsenter --mount --target PID`).

use std::fs::{self, File};

use nix::{
    sched::{CloneFlags, setns},
    sys::prctl,
    unistd::geteuid,
};
use reaper_exec::{MonitorConnection, Signal};
use reaper_spec::ExitStatus;

use crate::{
    error::{Error, Result},
    outcome::ExitAction,
    signals::{Event, Signals},
};

/// Moves this process, which has one thread, to the namespaces of the process `pid`.
///
/// From then on a path is the container's, so nothing of the host may be opened by one.
pub(crate) fn enter_namespaces(pid: u32) -> Result<()> {
    enter(pid).map_err(Error::io("enter the container's namespaces"))
}

/// Keeps the files of this process, among them its connections to the monitor, from processes of
/// the container.
pub(crate) fn hide() -> Result<()> {
    // As a user it would lose its own files in /proc, and podman the way in.
    if geteuid().is_root() {
        prctl::set_dumpable(false).map_err(|errno| {
            Error::io("keep the files of the process of the pid file from others")(errno.into())
        })?;
    }
    prctl::set_name(c"reaper-proxy")
        .map_err(|errno| Error::io("name the process of the pid file")(errno.into()))
}

fn enter(pid: u32) -> std::io::Result<()> {
    // Not the one of pids: the end of the container's first process would end this one before it has passed
    // the exit on. The user's first, which gives the rights to the others, and the mounts last, which hide /proc.
    const KINDS: [(&str, CloneFlags); 6] = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let of = |who: &dyn std::fmt::Display, kind: &str| format!("/proc/{who}/ns/{kind}");
    let mut others = Vec::new();
    for (kind, flag) in KINDS {
        if fs::read_link(of(&pid, kind))? != fs::read_link(of(&"self", kind))? {
            others.push((File::open(of(&pid, kind))?, flag));
        }
    }
    for (namespace, flag) in others {
        setns(namespace, flag)?;
    }
    Ok(())
}

/// Stays until the process that `monitor` was connected for has ended, and says how.
pub(crate) async fn stay(monitor: &MonitorConnection, signals: &mut Signals) -> ExitAction {
    let mut ended = std::pin::pin!(monitor.wait());
    loop {
        tokio::select! {
            exit = &mut ended => {
                // Without its monitor a container is killed.
                let killed = ExitStatus::Signaled { signal: Signal::KILL.number(), core: false };
                return ExitAction::ExitLike(exit.map_or(killed, |exit| exit.status));
            }
            event = signals.next() => {
                if let Event::Forward(signal) | Event::Key(signal) = event {
                    // It has ended, or its end is about to be heard of.
                    let _ = monitor.kill(signal).await;
                }
            }
        }
    }
}
