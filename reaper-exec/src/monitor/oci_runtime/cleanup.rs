//! Cleaning up after a killed monitor whose container an OCI runtime had made.

use std::{
    fs, io,
    os::fd::AsFd,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::poll::PollFlags;
use reaper_spec::{ContainerId, ExitStatus, ProcessIdentity};
use reaper_state::ContainerDir;
use serde_json::Value;

use super::{command::Program, error_message::last_log_error, runtime::folder};
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

/// Has the runtime kill and delete the container in `dir`. Idempotent. Returns init, if it was killed and
/// does not exit, because it is in an uninterruptible sleep: then the runtime could not delete the
/// container, and forgets it nevertheless.
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
    if left.is_none() {
        removed?;
    }
    fs::remove_dir_all(&folder)
        .map_err(|error| Failure::setup(format!("remove {}", folder.display()), &error))?;
    Ok(left.map(|init| init.pid))
}

/// The container's init process, as the runtime knows it.
fn init_of(program: &Program, log: &Path) -> Option<ProcessIdentity> {
    let mut state = program.command(log);
    state.args(program.on_container("state", &[]));
    let state = state.stdout(Stdio::piped()).output().ok()?;
    let state: Value = serde_json::from_slice(&state.stdout).ok()?;
    let pid = u32::try_from(state["pid"].as_u64()?).ok()?;
    procfs::identify(pid).ok()
}

/// Calls the runtime's `delete --force`, and kills it when it takes too long.
fn remove(program: &Program, log: &Path) -> Result<(), Failure> {
    let step = program.step("delete");
    let failed = |error: io::Error| Failure::setup(step.clone(), &error);
    let mut command = program.command(log);
    let mut child = command.args(program.removal()).spawn().map_err(failed)?;
    let identity = procfs::identify(child.id()).map_err(failed)?;
    let pidfd = procfs::open_pidfd(&identity).map_err(failed)?;
    let deadline = Instant::now() + REMOVAL_TIMEOUT;
    let has_exited = wait_until(pidfd.as_fd(), PollFlags::POLLIN, deadline, || {
        !procfs::is_alive(&identity)
    });
    if !has_exited {
        // It is reaped when this program has ended, should it hang in a system call.
        let _ = child.kill();
        return Err(Failure::Setup {
            step,
            message: format!("it took longer than {} s", REMOVAL_TIMEOUT.as_secs()),
            errno: None,
        });
    }
    let exited = child.wait().map_err(failed)?;
    if exited.success() {
        return Ok(());
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
