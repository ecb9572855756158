//! The operations on a container that exists.
//!
//! The executor acts first; what it reports is committed to the store before the operation returns.
//! A program that is killed between the two leaves an old record, which the next `state` brings up
//! to date.

use std::os::fd::AsFd as _;

use reaper_overlay::ViewRequest;
use reaper_spec::{ContainerId, Exit, Status, Timestamp, Transition};
use reaper_state::{Record, StateStore};

use super::{
    base::Engine,
    error::{Error, Result},
    metrics::{Counting, Operation},
    record,
};
use crate::{
    executor::{ContainerState, Error as ExecutorError, Executor, Target},
    procfs,
    signal::Signal,
    sys,
};

impl<E: Executor, S: StateStore + ?Sized + 'static> Engine<E, S> {
    /// Starts a created container.
    ///
    /// # Errors
    /// [`Error::Transition`] unless it is created; the errors of [`Executor::start`], after which
    /// the container has stopped.
    pub async fn start(&self, id: &ContainerId) -> Result<Record> {
        let target = Target::Init(id.clone());
        let started = async { self.executor.start(&target).await.map(drop) };
        self.start_with(id, started).await
    }

    /// As [`start`](Self::start), but by `open`, for executors that have other ways to start.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        &self,
        id: &ContainerId,
        open: impl Future<Output = Result<(), ExecutorError>>,
    ) -> Result<Record> {
        let counting = Counting::begin(&self.root, Operation::Start);
        counting.end(self.start_uncounted(id, open).await)
    }

    async fn start_uncounted(
        &self,
        id: &ContainerId,
        open: impl Future<Output = Result<(), ExecutorError>>,
    ) -> Result<Record> {
        let record = self.state(id).await?;
        if let Err(source) = record.status.after(Transition::Start) {
            return Err(Error::Transition {
                id: id.clone(),
                source,
            });
        }
        // Taken before the start, so that the exit cannot have an earlier time.
        let started = Timestamp::now();
        if let Err(error) = open.await {
            // The reason is what the caller needs; an end that cannot be committed now is later.
            if let Err(uncommitted) = self.state(id).await {
                tracing::warn!(%id, "commit the end after a failed start: {uncommitted}");
            }
            return Err(error.into());
        }
        let mut uncommitted = record;
        match self
            .change(id, move |record| record::started(record, started))
            .await
        {
            // The program runs, and an error would say that it does not. The next `state` commits.
            Err(Error::Store(error @ reaper_state::Error::Io { .. })) => {
                tracing::warn!(%id, "commit the start: {error}");
                record::started(&mut uncommitted, started);
                Ok(uncommitted)
            }
            committed => committed,
        }
    }

    /// A container's record, brought up to date with what its executor observes: an exit that
    /// is not committed yet is committed. Where that is not possible the record is what is
    /// [known](Self::known_state), and the reason is logged as a warning.
    ///
    /// # Errors
    /// [`reaper_state::Error::NotFound`], and others of a record that cannot be read.
    pub async fn state(&self, id: &ContainerId) -> Result<Record> {
        let (record, reason) = self.known_state(id).await?;
        if let Some(reason) = reason {
            tracing::warn!("container {id}: {reason}");
        }
        Ok(record)
    }

    /// As [`state`](Self::state), with the reason if the record may not be up to date: the monitor
    /// does not answer, or the executor's own records cannot be read; or why an up to date record
    /// could not be committed, on a full or read-only state root.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub async fn known_state(&self, id: &ContainerId) -> Result<(Record, Option<Error>)> {
        let stored = self.get(id).await?;
        if stored.record.status == Status::Stopped {
            return Ok((stored.record, None));
        }
        let seen = match self.executor.state(id).await {
            Ok(seen) => seen,
            Err(ExecutorError::NotFound(_)) if stored.record.status == Status::Creating => {
                if stored.record.monitor.as_ref().is_none_or(procfs::is_alive) {
                    return Ok((stored.record, None));
                }
                record::unknown_exit("the process that created it was killed")
            }
            // Not this executor's: a shim, for example, is itself the process of its pod's sandbox.
            Err(ExecutorError::NotFound(_))
                if stored.record.process.as_ref().is_some_and(procfs::is_alive) =>
            {
                return Ok((stored.record, None));
            }
            Err(ExecutorError::NotFound(_)) => record::unknown_exit("nothing is left of it"),
            Err(error) => return Ok((stored.record, Some(error.into()))),
        };
        if seen.status == stored.record.status {
            return Ok((stored.record, None));
        }
        let observe = for_same_container(stored.record.created, seen.clone());
        match self.change(id, observe).await {
            Err(error @ Error::Store(reaper_state::Error::Io { .. })) => {
                let mut record = stored.record;
                record::observed(&mut record, &seen);
                Ok((record, Some(error)))
            }
            changed => Ok((changed?, None)),
        }
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self) -> Result<Vec<ContainerId>> {
        Ok(self.stored(|store| store.list()).await?)
    }

    /// Waits for the end of a container, and commits it before it returns. Where the store cannot
    /// write it, on a full or read-only state root, the reason is logged as a warning.
    ///
    /// # Errors
    /// What [`Executor::wait`] and the store say.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exit> {
        let created = match self.get(id).await {
            Ok(stored) => Some(stored.record.created),
            Err(Error::Store(reaper_state::Error::NotFound { .. })) => None,
            Err(error) => return Err(error),
        };
        let exit = self.executor.wait(&Target::Init(id.clone())).await?;
        let Some(created) = created else {
            return Ok(exit);
        };
        let seen = ContainerState::stopped(exit.clone());
        match self.change(id, for_same_container(created, seen)).await {
            Ok(_) | Err(Error::Store(reaper_state::Error::NotFound { .. })) => Ok(exit),
            Err(Error::Store(error @ reaper_state::Error::Io { .. })) => {
                tracing::warn!(%id, "commit the end: {error}");
                Ok(exit)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to a container's init process, or to all its processes. If its monitor does
    /// not answer, the signal goes to the init process that the record names.
    ///
    /// # Errors
    /// As [`Executor::kill`]; [`reaper_state::Error::NotFound`]. A record that cannot be read is not
    /// an error.
    pub async fn kill(&self, id: &ContainerId, signal: Signal, all: bool) -> Result<()> {
        let stored = self.get(id).await;
        if let Err(error @ Error::Store(reaper_state::Error::NotFound { .. })) = stored {
            return Err(error);
        }
        match self
            .executor
            .kill(&Target::Init(id.clone()), signal, all)
            .await
        {
            Err(error @ ExecutorError::Unresponsive { .. }) => {
                let process = stored.ok().and_then(|stored| stored.record.process);
                let process = process.ok_or(error)?;
                // An error means that it has exited.
                if let Ok(process) = procfs::open_pidfd(&process) {
                    let _ = sys::pidfd_send_signal(process.as_fd(), signal.number());
                }
                Ok(())
            }
            killed => Ok(killed?),
        }
    }

    /// Freezes a running container.
    ///
    /// # Errors
    /// As [`Executor::pause`].
    pub async fn pause(&self, id: &ContainerId) -> Result<Record> {
        self.executor.pause(id).await?;
        self.state(id).await
    }

    /// Thaws a paused container.
    ///
    /// # Errors
    /// As [`Executor::resume`].
    pub async fn resume(&self, id: &ContainerId) -> Result<Record> {
        self.executor.resume(id).await?;
        self.state(id).await
    }

    /// Removes a container that has stopped, with all that it holds, and returns its exit. With
    /// `force` one that has not is killed first.
    ///
    /// # Errors
    /// [`Error::NotStopped`] without `force`; [`reaper_state::Error::NotFound`].
    pub async fn delete(&self, id: &ContainerId, force: bool) -> Result<Option<Exit>> {
        let counting = Counting::begin(&self.root, Operation::Delete);
        counting.end(self.delete_uncounted(id, force).await)
    }

    async fn delete_uncounted(&self, id: &ContainerId, force: bool) -> Result<Option<Exit>> {
        let record = match self.state(id).await {
            Ok(record) => Some(record),
            Err(
                Error::Store(
                    reaper_state::Error::Corrupt { .. } | reaper_state::Error::Newer { .. },
                )
                | Error::Executor(_),
            ) if force => None,
            Err(error @ Error::Store(reaper_state::Error::NotFound { .. })) if force => {
                // A creation that was killed may have left what there is no record of.
                self.forget(id).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let status = record
            .as_ref()
            .map_or(Status::Creating, |record| record.status);
        let is_live = status != Status::Stopped;
        if is_live && !force {
            return Err(Error::NotStopped {
                id: id.clone(),
                status,
            });
        }
        let creating = record.as_ref().filter(|_| status == Status::Creating);
        let taken = creating.map(|record| record.created);
        if let Some(taken) = taken {
            self.mark_deletion(id, taken, true).await;
        }
        let removed = self.remove(id, is_live, force).await;
        if let (Err(_), Some(taken)) = (&removed, taken) {
            self.mark_deletion(id, taken, false).await;
        }
        let seen = removed?;
        self.forget(id).await?;
        Ok(seen.or_else(|| record.and_then(|record| record.exit)))
    }

    /// Removes a container from the executor, and kills it first if it is live. With `force`, one
    /// that its record says has stopped is killed too where its monitor is still at its creation:
    /// the program that had it created was killed.
    async fn remove(
        &self,
        id: &ContainerId,
        mut is_live: bool,
        force: bool,
    ) -> Result<Option<Exit>> {
        /// A monitor at work on a creation is killed by the next try at the latest: that finds it
        /// without its socket.
        const TRIES: usize = 3;
        let target = Target::Init(id.clone());
        let is_creating = |error: &Error| {
            let status = Status::Creating;
            matches!(error, Error::Executor(ExecutorError::Status { status: found, .. }) if *found == status)
        };
        for _ in 1..TRIES {
            let removed = async {
                if is_live {
                    self.end(id).await?;
                }
                Ok(self.executor.delete(&target).await?)
            };
            match removed.await {
                // It was about to end its creation, of itself or since its process was killed.
                Err(error) if force && is_creating(&error) => is_live = true,
                removed => return removed,
            }
        }
        self.end(id).await?;
        Ok(self.executor.delete(&target).await?)
    }

    /// Removes what is kept for the container of `view` after its exit, if it had no process of the
    /// executor: see [`Executor::remove_view`].
    ///
    /// # Errors
    /// As [`Executor::remove_view`].
    pub async fn remove_view(&self, view: ViewRequest) -> Result<()> {
        let view = view.with_state_root(self.root.path());
        Ok(self.executor.remove_view(&view).await?)
    }

    /// Kills all of a container and waits for its end. Nothing to kill is success.
    pub(super) async fn end(&self, id: &ContainerId) -> Result<()> {
        let target = Target::Init(id.clone());
        match self.executor.kill(&target, Signal::KILL, true).await {
            Ok(()) => match self.executor.wait(&target).await {
                // Another program has deleted it meanwhile.
                Ok(_) | Err(ExecutorError::NotFound(_)) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Err(ExecutorError::NotFound(_) | ExecutorError::Ended(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What was observed of a container, for the record of the one that was made then. By the time it
/// is committed another may have its id.
fn for_same_container(
    created: Timestamp,
    seen: ContainerState,
) -> impl Fn(&mut Record) + Send + 'static {
    move |record| {
        if record.created == created {
            record::observed(record, &seen);
        }
    }
}
