//! Which containers a command is about.

use futures_util::{StreamExt as _, stream};
use reaper_exec::engine::Error as EngineError;
use reaper_spec::{ContainerId, Status};
use reaper_state::{Error as StoreError, Record};

use super::output::remark;
use crate::{
    error::{Error, Result},
    host::ContainerEngine,
    text::printable,
};

/// How many containers are looked at at a time: each costs a connection, and one whose monitor does
/// not answer must not hold up the others.
const AT_A_TIME: usize = 32;

/// What is known of containers.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The records that could be read.
    pub(super) records: Vec<Record>,
    /// How many could not be read, or may not be up to date; each was named.
    pub(super) failed: usize,
    /// How many there are.
    pub(super) all: usize,
}

impl Known {
    /// The containers that have stopped.
    pub(super) fn stopped(&self) -> Vec<ContainerId> {
        let stopped = |record: &&Record| record.status == Status::Stopped;
        let stopped = self.records.iter().filter(stopped);
        stopped.map(|record| record.id.clone()).collect()
    }

    /// An error if there is a container of which not all is known.
    pub(super) fn complete(&self) -> Result<()> {
        incomplete("containers", "brought up to date", self.failed, self.all)
    }
}

/// An error if some of `what`, of which each was named, `failed` to be `done` so.
pub(super) fn incomplete(
    what: &'static str,
    done: &'static str,
    failed: usize,
    all: usize,
) -> Result<()> {
    match failed {
        0 => Ok(()),
        failed => Err(Error::Incomplete {
            what,
            done,
            failed,
            all,
        }),
    }
}

/// All containers, sorted by id.
pub(super) async fn known(containers: &ContainerEngine) -> Result<Known> {
    let ids = containers.list().await?;
    let mut known = Known::default();
    let states = stream::iter(&ids).map(|id| async move { (id, containers.known_state(id).await) });
    let mut states = states.buffered(AT_A_TIME);
    while let Some((id, state)) = states.next().await {
        let reason = match state {
            // It was deleted meanwhile.
            Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
            Err(error) => Some(error),
            Ok((record, reason)) => {
                known.records.push(record);
                reason
            }
        };
        known.all += 1;
        if let Some(reason) = reason {
            known.failed += 1;
            remark(&printable(&format!("container {id}: {reason}")));
        }
    }
    Ok(known)
}
