//! Cleaning up after a killed monitor that had runtime_config a runtime.

use std::{
    fs,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reaper_spec::{ContainerId, ExitStatus, ProcessIdentity};
use reaper_state::ContainerDir;

use super::{command::Program, error_message::last_log_error, runtime::folder};
use crate::{
    procfs,
    protocol::{Failure, RuntimeConfig},
    sys,
};

/// How long commands that were killed may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends the container in `dir` and removes what the runtime keeps of it. Idempotent.
pub(crate) fn cleanup(
    runtime_config: &RuntimeConfig,
    id: &ContainerId,
    dir: &ContainerDir,
    monitor: &ProcessIdentity,
) -> Result<(), Failure> {
    let folder = folder(dir);
    if !folder.exists() {
        return Ok(());
    }
    if procfs::boot_id().is_ok_and(|boot| boot == monitor.boot_id) {
        // A command could make what the removal has just found missing.
        end_commands(monitor);
    }
    let program = Program::new(runtime_config.clone(), id, &folder);
    let log = folder.join("log-burial");
    let step = program.step("delete");
    let ended = program.command(&log).args(program.removal()).status();
    let ended = ended.map_err(|error| Failure::setup(step.clone(), &error))?;
    if !ended.success() {
        let code = ended.code().and_then(|code| u8::try_from(code).ok());
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

/// Kills the commands that the monitor had called: they are in its session, whose number is not
/// given to another while they live. The container's processes are in sessions of their own.
fn end_commands(monitor: &ProcessIdentity) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    for pid in procfs::session(monitor.pid).unwrap_or_default() {
        let Ok(pidfd) = procfs::identify(pid).and_then(|process| procfs::open_pidfd(&process))
        else {
            continue;
        };
        // It may have ended by itself.
        let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let _ = poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            timeout,
        );
    }
}
