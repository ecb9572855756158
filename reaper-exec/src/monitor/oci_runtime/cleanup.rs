//! Cleaning up after a killed monitor whose container an OCI runtime had made.

use std::{
    fs,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::poll::PollFlags;
use reaper_spec::{ContainerId, ExitStatus, ProcessIdentity};
use reaper_state::ContainerDir;

use super::{command::Program, error_message::last_log_error, runtime::folder};
use crate::{
    monitor::support::wait::wait_until,
    procfs,
    protocol::{Failure, RuntimeConfig},
    sys,
};

/// How long commands that were killed may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Has the runtime kill and delete the container in `dir`. Idempotent.
pub(crate) fn cleanup(
    config: &RuntimeConfig,
    id: &ContainerId,
    dir: &ContainerDir,
    monitor: &ProcessIdentity,
) -> Result<(), Failure> {
    let folder = folder(dir);
    if !folder.exists() {
        return Ok(());
    }
    if procfs::boot_id().is_ok_and(|boot| boot == monitor.boot_id) {
        // A command that is under way could create what 'delete' has not found.
        kill_commands(monitor);
    }
    let program = Program::new(config.clone(), id, &folder);
    let log = folder.join("log-burial");
    let step = program.step("delete");
    let exited = program.command(&log).args(program.removal()).status();
    let exited = exited.map_err(|error| Failure::setup(step.clone(), &error))?;
    if !exited.success() {
        let code = exited.code().and_then(|code| u8::try_from(code).ok());
        let status = ExitStatus::Exited {
            code: code.unwrap_or(u8::MAX),
        };
        return Err(Failure::Setup {
            step,
            message: last_log_error(&log, &status),
            errno: None,
        });
    }
    fs::remove_dir_all(&folder)
        .map_err(|error| Failure::setup(format!("remove {}", folder.display()), &error))
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
