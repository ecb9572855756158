//! Cleaning up after a monitor that was killed.
//!
//! This runs in a separate process, which a client starts like a monitor: it waits for processes to
//! exit and unmounts, which may block, and must not hold up the client.

use std::{
    io,
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use nix::poll::PollFlags;
use reaper_overlay::FilesystemIsolation;
use reaper_spec::{ContainerId, Exit, ExitStatus, HookKind, ProcessIdentity, Status, Timestamp};
use reaper_state::{ContainerDir, lock_exclusive};

use crate::{
    cgroup::{self, Cgroups, Claim, read_events},
    executor::ContainerState,
    hooks::{HookFolder, Surroundings, run_all, state},
    monitor::{
        oci_runtime::{cleanup as runtime, rootfs::Image},
        support::{container_files::remove_runtime_files, log::log_line, wait::wait_until},
    },
    procfs,
    protocol::{CleanupRecord, ExitRecord, Failure, HooksConfig},
    records, sys,
};

/// How long a monitor that was killed, and the processes that it left, may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Cleans up after the container in `dir`, whose monitor was killed.
///
/// Kills the remaining processes, writes `exit.json` if the monitor did not, and releases the
/// cgroup and the view. With `remove`, deletes the container's files as well; without it
/// `plan.json` stays, so a later call retries what failed.
///
/// With `kill` the monitor may still be there: one that does not answer is killed first. SIGKILL
/// cannot be refused: where the monitor does not exit within its time, because it is in an
/// uninterruptible sleep, it will execute nothing of its program any more.
///
/// Safe to call concurrently: `plan.json` is locked, and later callers return the recorded exit.
pub(crate) fn cleanup(
    isolation: &dyn FilesystemIsolation,
    myself: &ProcessIdentity,
    id: &ContainerId,
    dir: &Path,
    remove: bool,
    kill: bool,
) -> Result<ContainerState, Failure> {
    let dir = ContainerDir::new(dir);
    let plan_file = match records::open(&dir.cleanup_file()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return recorded(&dir, remove),
        Err(error) => return Err(Failure::setup("open the monitor's plan", &error)),
    };
    lock_exclusive(&plan_file)
        .map_err(|error| Failure::setup("lock the monitor's plan", &error))?;
    // An earlier holder of the lock may have removed the file.
    let Some(mut plan) = read::<CleanupRecord>(&dir.cleanup_file())? else {
        return recorded(&dir, remove);
    };
    // It was killed before it had them, and another container has them now.
    let claim = Claim::new(plan.monitor.clone(), true);
    plan.cgroups = plan.cgroups.without_lost(&claim);
    if kill {
        kill_monitor(&plan);
    }
    // Its socket closes a moment before it has exited.
    let deadline = Instant::now() + KILL_TIMEOUT;
    if !exits(&plan.monitor, deadline) && !kill && !procfs::is_killed(&plan.monitor) {
        let reason = format!("the monitor of {id} (pid {}) is alive", plan.monitor.pid);
        return Err(Failure::Refused { reason });
    }
    // The monitor may have exited because the container was deleted, and another container may have
    // its id now.
    let current = read::<CleanupRecord>(&dir.cleanup_file())?;
    if current.is_none_or(|current| current.monitor != plan.monitor) {
        return recorded(&dir, remove);
    }
    let isolation = match &plan.runtime {
        Some(_) => &Image,
        None => isolation,
    };
    let rebooted = plan.monitor.boot_id != myself.boot_id;
    let cgroups = Some(&plan.cgroups).filter(|_| !rebooted);
    let left = match &plan.runtime {
        Some(config) => runtime::cleanup(config, id, &dir, &plan.monitor)?,
        None => None,
    };
    let exit = exit_of(&dir, remove, cgroups, rebooted, left)?;
    let released = release(isolation, &plan, cgroups, remove);
    if remove {
        released?;
        if let Some(hooks) = &plan.hooks {
            end_hooks(hooks, id, &dir);
        }
        let _ = records::remove(&dir.exit_file());
        remove_runtime_files(&dir);
    } else {
        let _ = std::fs::remove_file(dir.socket());
    }
    Ok(ContainerState::stopped(exit))
}

fn recorded(dir: &ContainerDir, remove: bool) -> Result<ContainerState, Failure> {
    recorded_exit(dir, remove)?
        .map(ContainerState::stopped)
        .ok_or(Failure::NotFound)
}

/// The exit that the monitor has recorded. Where the record is something else by now, it is unknown how a container
/// ended that is removed.
fn recorded_exit(dir: &ContainerDir, remove: bool) -> Result<Option<Exit>, Failure> {
    match records::read::<ExitRecord>(&dir.exit_file()) {
        Ok(record) => Ok(record.map(|record| record.exit)),
        Err(error) if remove => {
            let reason = format!("read {}: {error}", dir.exit_file().display());
            Ok(Some(Exit::new(
                ExitStatus::Unknown { reason },
                Timestamp::now(),
            )))
        }
        Err(error) => {
            let step = format!("read {}", dir.exit_file().display());
            Err(Failure::setup(step, &error))
        }
    }
}

/// The exit that the monitor has recorded, else one that is recorded now, after what is left in the
/// cgroup was killed. `left` is a process that a runtime could not kill.
fn exit_of(
    dir: &ContainerDir,
    remove: bool,
    cgroups: Option<&Cgroups>,
    rebooted: bool,
    left: Option<u32>,
) -> Result<Exit, Failure> {
    if let Some(exit) = recorded_exit(dir, remove)? {
        // All processes had exited when it was written. Those in the cgroup now are not the
        // container's.
        return Ok(exit);
    }
    if let Some(cgroups) = cgroups {
        kill(cgroups).map_err(|error| Failure::from_error("end what the monitor left", &error))?;
    }
    let reason = match left {
        _ if rebooted => "the machine was restarted".to_owned(),
        Some(pid) => format!(
            "its monitor was killed, and so was process {}, which does not exit",
            procfs::describe(pid)
        ),
        None => "its monitor was killed".to_owned(),
    };
    let exit = Exit::new(ExitStatus::Unknown { reason }, Timestamp::now());
    // The state root may be full or read-only, which must hold back neither the exit nor the
    // deletion. As long as there is no record a later call comes to the same result.
    let _ = records::write_exit(dir, &exit);
    Ok(exit)
}

fn release(
    isolation: &dyn FilesystemIsolation,
    plan: &CleanupRecord,
    cgroups: Option<&Cgroups>,
    remove: bool,
) -> Result<(), Failure> {
    let released = if remove {
        isolation.remove(&plan.view)
    } else {
        isolation.cleanup(&plan.view)
    };
    match cgroups.map(Cgroups::remove) {
        None | Some(Ok(()) | Err(cgroup::Error::Populated(_))) => {}
        Some(Err(error)) => return Err(Failure::from_error("remove the cgroup", &error)),
    }
    released.map_err(|error| Failure::from_error("free the filesystem view", &error))
}

/// Runs the hooks of the end, if they are due, and logs those that fail.
fn end_hooks(config: &HooksConfig, id: &ContainerId, dir: &ContainerDir) {
    let folder = HookFolder::of(dir.path());
    if folder.claim_end() {
        let bundle = Some(folder.path());
        let state = state(id, Status::Stopped, None, bundle, Some(&config.annotations));
        let surroundings = Surroundings {
            root: None,
            directory: folder.path(),
            wanted: None,
        };
        let hooks = &config.hooks.poststop;
        for failure in run_all(HookKind::Poststop, hooks, &state, surroundings) {
            log_line(config.log.as_deref(), id.as_str(), &failure.to_string());
        }
    }
    folder.remove();
}

/// Kills a monitor that does not answer, with the processes of its container, which it could not
/// reap before.
fn kill_monitor(plan: &CleanupRecord) {
    // An error means that it has exited, or that it is of another boot.
    let Ok(monitor) = procfs::open_pidfd(&plan.monitor) else {
        return;
    };
    let _ = sys::pidfd_send_signal(monitor.as_fd(), libc::SIGKILL);
    // What is left is killed again once the monitor has exited.
    let _ = plan.cgroups.kill();
}

/// Waits for the exit of a process, and returns whether it has come by the deadline.
fn exits(process: &ProcessIdentity, deadline: Instant) -> bool {
    let Ok(pidfd) = procfs::open_pidfd(process) else {
        return true;
    };
    wait_until(pidfd.as_fd(), PollFlags::POLLIN, deadline, || {
        !procfs::is_alive(process)
    })
}

/// Kills the processes in the cgroup, and waits for their exit. If one cannot be killed, the exit
/// of the container is recorded nevertheless.
fn kill(cgroups: &Cgroups) -> Result<(), cgroup::Error> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    let Some(cgroup) = cgroups.v2() else {
        return kill_one_by_one(cgroups, deadline);
    };
    if !cgroup.path().exists() {
        return Ok(());
    }
    let events = cgroup.events_fd()?;
    cgroup.kill()?;
    wait_until(events.as_fd(), PollFlags::POLLPRI, deadline, || {
        !read_events(&events).is_ok_and(|events| events.populated)
    });
    Ok(())
}

/// Cgroups of version 1 do not report that they are empty: their processes do, each its own exit.
fn kill_one_by_one(cgroups: &Cgroups, deadline: Instant) -> Result<(), cgroup::Error> {
    while Instant::now() < deadline {
        cgroups.kill()?;
        let killed = cgroups.pids()?;
        if killed.is_empty() {
            break;
        }
        // All of them: to kill is to freeze first, which holds up those that are about to end.
        for (pid, _) in killed {
            if let Ok(process) = procfs::identify(pid) {
                exits(&process, deadline);
            }
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    records::read(path).map_err(|error| Failure::setup(format!("read {}", path.display()), &error))
}
