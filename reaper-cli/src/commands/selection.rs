//! Which containers a command is about.

use std::{future::poll_fn, task::Poll};

use reaper_exec::engine::Error as EngineError;
use reaper_spec::{ContainerId, Status};
use reaper_state::{Error as StoreError, Record};

use crate::{
    error::{Error, Result},
    host::ContainerEngine,
};

/// How many containers are looked at at a time: each costs a connection, and one whose monitor does
/// not answer must not hold up the others.
const AT_A_TIME: usize = 32;

/// What is known of containers.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The records that could be read.
    pub(super) records: Vec<Record>,
    /// How many could not be read, or may not be up to date; each was named in a warning.
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
        incomplete("brought up to date", self.failed, self.all)
    }
}

/// An error if something `failed`: each container was named.
pub(super) fn incomplete(done: &'static str, failed: usize, all: usize) -> Result<()> {
    match failed {
        0 => Ok(()),
        failed => Err(Error::Incomplete { done, failed, all }),
    }
}

/// All containers, sorted by id.
pub(super) async fn known(containers: &ContainerEngine) -> Result<Known> {
    let ids = containers.list().await?;
    let mut known = Known::default();
    let states = for_each(&ids, |id| containers.known_state(id)).await;
    for (id, state) in ids.iter().zip(states) {
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
            tracing::warn!("container {id}: {reason}");
        }
    }
    Ok(known)
}

/// The outcomes of `call`, in the order of the ids.
async fn for_each<'a, T, F: Future<Output = T>>(
    ids: &'a [ContainerId],
    call: impl Fn(&'a ContainerId) -> F,
) -> Vec<T> {
    let mut outcomes = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_A_TIME) {
        let mut running: Vec<_> = some.iter().map(|id| (Box::pin(call(id)), None)).collect();
        poll_fn(|context| {
            let mut all = Poll::Ready(());
            for (call, outcome) in &mut running {
                if outcome.is_none() {
                    match call.as_mut().poll(context) {
                        Poll::Ready(done) => *outcome = Some(done),
                        Poll::Pending => all = Poll::Pending,
                    }
                }
            }
            all
        })
        .await;
        outcomes.extend(running.into_iter().filter_map(|(_, outcome)| outcome));
    }
    outcomes
}
