//! How a record changes by what an executor reports.

use reaper_spec::{Exit, ExitStatus, Status, Timestamp};
use reaper_state::Record;

use crate::executor::{ContainerState, CreatedProcess};

/// The process was created. Another program may have committed that already, or even its exit.
pub(super) fn created(record: &mut Record, created: &CreatedProcess) {
    if record.status == Status::Creating {
        record.status = Status::Created;
    }
    record.process.clone_from(&created.process);
    record.monitor.clone_from(&created.monitor);
}

/// The program was executed.
pub(super) fn started(record: &mut Record, at: Timestamp) {
    record.started = Some(at);
    if record.status == Status::Created {
        record.status = Status::Running;
    }
}

/// Takes over what the executor sees. `stopped` is final, and a later status is never undone by
/// an observation that was made before it.
pub(super) fn observed(record: &mut Record, seen: &ContainerState) {
    if record.status == Status::Stopped {
        return;
    }
    record.status = seen.status;
    if record.process.is_none() {
        record.process.clone_from(&seen.process);
        record.monitor.clone_from(&seen.monitor);
    }
    if seen.status == Status::Stopped {
        record.exit.clone_from(&seen.exit);
    }
}

pub(super) fn unknown_exit(reason: &str) -> ContainerState {
    let status = ExitStatus::Unknown {
        reason: reason.to_owned(),
    };
    ContainerState::stopped(Exit::new(status, Timestamp::now()))
}
