//! Cleaning up after a monitor that was killed.
//!
//! It runs in a process of its own, as a monitor does: it mounts, waits for processes to end, and
//! must not hold up the program that found the monitor dead.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use reaper_overlay::FilesystemIsolation;
use reaper_spec::{ContainerId, Exit, ExitStatus, ProcessIdentity, Timestamp};
use reaper_state::{ContainerDir, durable};

use crate::{
    cgroup::{self, ContainerCgroup, read_events},
    executor::Observation,
    monitor::{
        oci_runtime::{cleanup as runtime, rootfs::Image},
        support::container_files::remove_runtime_files,
    },
    procfs,
    protocol::{CleanupRecord, ExitRecord, Failure, VERSION},
};

/// How long a dying monitor, and what it left, may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends what is left of the container in `dir`, records an end if there is no record, and frees
/// what it held. To `forget` it is to leave nothing; else the plan stays for whoever does, and so
/// what cannot be freed now is tried again then.
///
/// Any number of callers may cleanup one container: the first does it, the others find its record.
pub(crate) fn cleanup(
    isolation: &dyn FilesystemIsolation,
    myself: &ProcessIdentity,
    id: &ContainerId,
    dir: &Path,
    forget: bool,
) -> Result<Observation, Failure> {
    let dir = ContainerDir::at(dir);
    let plan_file = match File::open(dir.plan_file()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return recorded(&dir),
        Err(error) => return Err(Failure::setup("open the monitor's plan", &error)),
    };
    let _lock = Flock::lock(plan_file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Failure::setup("lock the monitor's plan", &errno.into()))?;
    // Whoever had the lock before may have finished.
    let Some(plan) = read::<CleanupRecord>(&dir.plan_file())? else {
        return recorded(&dir);
    };
    if !has_ended(&plan.monitor) {
        let reason = format!("the monitor of {id} (pid {}) is alive", plan.monitor.pid);
        return Err(Failure::Refused { reason });
    }
    // It may have ended because it was told to leave nothing, and the id may be another's now.
    let still = read::<CleanupRecord>(&dir.plan_file())?;
    if still.is_none_or(|still| still.monitor != plan.monitor) {
        return recorded(&dir);
    }
    let isolation = match &plan.runtime {
        Some(_) => &Image,
        None => isolation,
    };
    let rebooted = plan.monitor.boot_id != myself.boot_id;
    let cgroup = plan.cgroup.as_ref().filter(|_| !rebooted);
    if let Some(runtime_config) = &plan.runtime {
        runtime::cleanup(runtime_config, id, &dir, &plan.monitor)?;
    }
    let exit = match read::<ExitRecord>(&dir.exit_file())? {
        // When it was written all had ended; what is in the cgroup now is somebody else's.
        Some(record) => record.exit,
        None => {
            if let Some(cgroup) = cgroup {
                end(cgroup)
                    .map_err(|error| Failure::from_error("end what the monitor left", &error))?;
            }
            // A process that cannot be killed does not hold back the news.
            record(&dir, rebooted)?
        }
    };
    let freed = free(isolation, &plan, cgroup, forget);
    if forget {
        freed?;
        let _ = std::fs::remove_file(dir.exit_file());
        remove_runtime_files(&dir);
    } else {
        let _ = std::fs::remove_file(dir.socket());
    }
    Ok(Observation::stopped(exit))
}

fn recorded(dir: &ContainerDir) -> Result<Observation, Failure> {
    let record: Option<ExitRecord> = read(&dir.exit_file())?;
    record
        .map(|record| Observation::stopped(record.exit))
        .ok_or(Failure::NotFound)
}

fn free(
    isolation: &dyn FilesystemIsolation,
    plan: &CleanupRecord,
    cgroup: Option<&ContainerCgroup>,
    forget: bool,
) -> Result<(), Failure> {
    let viewed = if forget {
        isolation.forget(&plan.view)
    } else {
        isolation.collect(&plan.view)
    };
    match cgroup.map(ContainerCgroup::remove) {
        None | Some(Ok(()) | Err(cgroup::Error::Populated(_))) => {}
        Some(Err(error)) => return Err(Failure::from_error("remove the cgroup", &error)),
    }
    viewed.map_err(|error| Failure::from_error("free the filesystem view", &error))
}

/// Waits for the end of a monitor. Its socket closes a moment before it is dead.
fn has_ended(monitor: &ProcessIdentity) -> bool {
    let Ok(pidfd) = procfs::open_pidfd(monitor) else {
        return true;
    };
    let deadline = Instant::now() + KILL_TIMEOUT;
    while procfs::is_alive(monitor) && Instant::now() < deadline {
        wait(pidfd.as_fd(), PollFlags::POLLIN, deadline);
    }
    !procfs::is_alive(monitor)
}

/// Kills what is in the cgroup, and waits for its end.
fn end(cgroup: &ContainerCgroup) -> Result<(), cgroup::Error> {
    if !cgroup.path().exists() {
        return Ok(());
    }
    let events = cgroup.events_fd()?;
    let deadline = Instant::now() + KILL_TIMEOUT;
    cgroup.kill()?;
    while read_events(&events).is_ok_and(|events| events.populated) && Instant::now() < deadline {
        wait(events.as_fd(), PollFlags::POLLPRI, deadline);
    }
    Ok(())
}

/// An interruption or a spurious wake-up is left to the caller, who looks again anyway.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut [PollFd::new(fd, flags)], timeout);
}

fn record(dir: &ContainerDir, rebooted: bool) -> Result<Exit, Failure> {
    let reason = if rebooted {
        "the machine was restarted"
    } else {
        "its monitor was killed"
    };
    let status = ExitStatus::Lost {
        reason: reason.to_owned(),
    };
    let exit = Exit {
        status,
        at: Timestamp::now(),
    };
    let record = ExitRecord {
        version: VERSION,
        exit: exit.clone(),
    };
    let written = serde_json::to_vec(&record)
        .map_err(io::Error::from)
        .and_then(|json| durable::write(&dir.exit_file(), &json));
    written.map_err(|error| Failure::setup("record the exit", &error))?;
    Ok(exit)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    crate::records::read(path)
        .map_err(|error| Failure::setup(format!("read {}", path.display()), &error))
}
