//! Cleaning up after a monitor that was killed.
//!
//! It runs in a process of its own, as a monitor does: it mounts, waits for processes to end, and
//! must not hold up the program that found the monitor dead.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
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

use super::birth::{described, remove_traces};
use crate::{
    cgroup::ContainerCgroup,
    executor::Observation,
    procfs,
    protocol::{ExitRecord, Failure, Plan, VERSION},
};

/// How long what the monitor left may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends what is left of the container in `dir`, frees what it held, and records an end if there
/// is no record. Any number of callers may bury one container: the first does it, the others find
/// its record.
pub(super) fn bury(
    isolation: &dyn FilesystemIsolation,
    myself: &ProcessIdentity,
    id: &ContainerId,
    dir: &Path,
) -> Result<Observation, Failure> {
    let dir = ContainerDir::at(dir);
    let recorded = || {
        read_exit(&dir)?
            .map(Observation::stopped)
            .ok_or(Failure::NotFound)
    };
    let plan_file = match File::open(dir.plan_file()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return recorded(),
        Err(error) => return Err(Failure::setup("open the monitor's plan", &error)),
    };
    let _lock = Flock::lock(plan_file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Failure::setup("lock the monitor's plan", &errno.into()))?;
    // Whoever had the lock before may have finished.
    let Some(plan) = read_plan(&dir)? else {
        return recorded();
    };
    if procfs::is_alive(&plan.monitor) {
        let reason = format!("the monitor of {id} (pid {}) is alive", plan.monitor.pid);
        return Err(Failure::Refused { reason });
    }
    let rebooted = plan.monitor.boot_id != myself.boot_id;
    if let (Some(cgroup), false) = (&plan.cgroup, rebooted) {
        end(cgroup).map_err(|error| described("end what the monitor left", &error))?;
    }
    isolation
        .collect(&plan.view)
        .map_err(|error| described("free the filesystem view", &error))?;
    let exit = match read_exit(&dir)? {
        Some(exit) => exit,
        None => record(&dir, rebooted)?,
    };
    remove_traces(&dir);
    Ok(Observation::stopped(exit))
}

fn end(cgroup: &ContainerCgroup) -> Result<(), crate::cgroup::Error> {
    if !cgroup.path().exists() {
        return Ok(());
    }
    let events = cgroup.events_fd()?;
    let deadline = Instant::now() + PATIENCE;
    cgroup.kill()?;
    while cgroup.populated()? && Instant::now() < deadline {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        // An interrupted or spurious wake-up only looks again.
        let _ = poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)],
            timeout,
        );
    }
    cgroup.remove()
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

fn read_plan(dir: &ContainerDir) -> Result<Option<Plan>, Failure> {
    read(&dir.plan_file())
}

fn read_exit(dir: &ContainerDir) -> Result<Option<Exit>, Failure> {
    Ok(read::<ExitRecord>(&dir.exit_file())?.map(|record| record.exit))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    crate::records::read(path)
        .map_err(|error| Failure::setup(format!("read {}", path.display()), &error))
}
