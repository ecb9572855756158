//! Cleaning up after a killed monitor whose container an OCI runtime had made.

use std::{
    fs, io,
    os::fd::AsFd,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::poll::PollFlags;
use reaper_spec::{ContainerId, ExitStatus, ProcessIdentity};
use reaper_state::ContainerDir;
use serde_json::Value;

use super::{
    command::Program,
    error_message::last_log_error,
    runtime::{creation_mark, folder},
};
use crate::{
    monitor::support::wait::wait_until,
    procfs,
    protocol::{Failure, RuntimeConfig},
    sys,
};

/// How long what was killed may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the runtime's `delete` may take: runc's waits 10 s for the exit of init.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(15);

/// How long its `state` may take, which only reads.
const STATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Has the runtime kill and delete the container in `dir`. Idempotent. Returns init, if it was killed and
/// does not exit, because it is in an uninterruptible sleep: then the runtime could not delete the
/// container, and forgets it nevertheless.
///
/// A runtime that hangs is given up and killed. The container is forgotten nevertheless if it was
/// being created: as far as is known there was none.
pub(crate) fn cleanup(
    config: &RuntimeConfig,
    id: &ContainerId,
    dir: &ContainerDir,
    monitor: &ProcessIdentity,
) -> Result<Option<u32>, Failure> {
    let folder = folder(dir);
    if !folder.exists() {
        return Ok(None);
    }
    let is_this_boot = procfs::boot_id().is_ok_and(|boot| boot == monitor.boot_id);
    if is_this_boot {
        // A command that is under way could create what 'delete' has not found.
        kill_commands(monitor);
    }
    let program = Program::new(config.clone(), id, &folder);
    let log = folder.join("log-burial");
    let init = is_this_boot.then(|| init_of(&program, &log)).flatten();
    let removed = remove(&program, &log);
    let left = init.filter(|init| !ends_when_killed(init));
    let is_forgotten = match &removed {
        Ok(Removal::Done) => true,
        Ok(Removal::Hangs) => left.is_some() || creation_mark(&folder).exists(),
        Err(_) => left.is_some(),
    };
    if !is_forgotten {
        removed.and_then(|removal| removal.done(&program))?;
    }
    fs::remove_dir_all(&folder)
        .map_err(|error| Failure::setup(format!("remove {}", folder.display()), &error))?;
    Ok(left.map(|init| init.pid))
}

/// The container's init process, as the runtime knows it.
fn init_of(program: &Program, log: &Path) -> Option<ProcessIdentity> {
    let mut state = program.command(log);
    // Not a pipe: what the runtime has started may keep that open.
    let answer = log.with_file_name("state");
    state.stdout(fs::File::create(&answer).ok()?);
    state.args(program.on_container("state", &[]));
    run(&mut state, STATE_TIMEOUT).ok()??;
    let state: Value = serde_json::from_slice(&fs::read(answer).ok()?).ok()?;
    let pid = u32::try_from(state["pid"].as_u64()?).ok()?;
    procfs::identify(pid).ok()
}

/// What became of the runtime's `delete`.
enum Removal {
    Done,
    Hangs,
}

impl Removal {
    fn done(self, program: &Program) -> Result<(), Failure> {
        match self {
            Self::Done => Ok(()),
            Self::Hangs => Err(Failure::Setup {
                step: program.step("delete"),
                message: format!("it took longer than {} s", REMOVAL_TIMEOUT.as_secs()),
                errno: None,
            }),
        }
    }
}

/// Runs a command of the runtime, and kills it when it takes longer than `limit`: it has no exit
/// status then.
fn run(command: &mut Command, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let mut child = command.spawn()?;
    let identity = procfs::identify(child.id())?;
    let pidfd = procfs::open_pidfd(&identity)?;
    let deadline = Instant::now() + limit;
    let has_exited = wait_until(pidfd.as_fd(), PollFlags::POLLIN, deadline, || {
        !procfs::is_alive(&identity)
    });
    if !has_exited {
        // It is reaped when this program has ended, should it hang in a system call.
        let _ = child.kill();
        return Ok(None);
    }
    child.wait().map(Some)
}

/// Calls the runtime's `delete --force`.
fn remove(program: &Program, log: &Path) -> Result<Removal, Failure> {
    let step = program.step("delete");
    let failed = |error: io::Error| Failure::setup(step.clone(), &error);
    let mut command = program.command(log);
    let exited = run(command.args(program.removal()), REMOVAL_TIMEOUT).map_err(failed)?;
    let Some(exited) = exited else {
        return Ok(Removal::Hangs);
    };
    if exited.success() {
        return Ok(Removal::Done);
    }
    let code = exited.code().and_then(|code| u8::try_from(code).ok());
    let status = ExitStatus::Exited {
        code: code.unwrap_or(u8::MAX),
    };
    Err(Failure::Setup {
        step,
        message: last_log_error(log, &status),
        errno: None,
    })
}

/// Kills a process. Whether it exits, or has exited.
fn ends_when_killed(process: &ProcessIdentity) -> bool {
    let Ok(pidfd) = procfs::open_pidfd(process) else {
        return true;
    };
    // An error means that it has exited already.
    let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let deadline = Instant::now() + KILL_TIMEOUT;
    wait_until(pidfd.as_fd(), PollFlags::POLLIN, deadline, || {
        !procfs::is_alive(process)
    })
}

/// Kills the commands of the monitor. They are in its session, whose id is not reused while one of
/// them lives. The container's processes are in other sessions.
fn kill_commands(monitor: &ProcessIdentity) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    for pid in procfs::session(monitor.pid).unwrap_or_default() {
        let Ok(command) = procfs::identify(pid) else {
            continue;
        };
        let Ok(pidfd) = procfs::open_pidfd(&command) else {
            continue;
        };
        // An error means that it has exited already.
        let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        wait_until(pidfd.as_fd(), PollFlags::POLLIN, deadline, || {
            !procfs::is_alive(&command)
        });
    }
}
