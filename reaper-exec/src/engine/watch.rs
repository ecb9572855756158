//! What happens to the containers of a root, as it happens.
//!
//! inotify(7) reports which records may have changed; what has changed follows from comparing two
//! records. So events are missed neither when several changes are seen at once nor when the queue
//! overflows (all records are read then), except for a container that came and went between two
//! reads.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::Path,
};

use reaper_spec::{ContainerId, Exit, ExitStatus, Status, Timestamp};
use reaper_state::{Error as StoreError, Record, StateStore};

use super::{
    base::Engine,
    changes::{Changes, Dirty},
    error::{Error, Result},
};
use crate::executor::Executor;

/// A change in the life of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The container.
    pub id: ContainerId,
    /// When it happened; for what a record has no time of, when it was seen.
    pub at: Timestamp,
    /// What happened.
    pub change: EventKind,
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// It was made, and waits for its start.
    Created,
    /// Its program was executed.
    Started,
    /// It was frozen.
    Paused,
    /// It was thawed.
    Resumed,
    /// It has ended.
    Stopped(Exit),
    /// It was deleted.
    Deleted,
}

impl EventKind {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Stopped(_) => "stopped",
            Self::Deleted => "deleted",
        }
    }
}

/// The code of a process whose program could not be executed.
const NOT_EXECUTED: u8 = 127;

/// The lives of an engine's containers: see [`Engine::watch`].
#[derive(Debug)]
pub struct EventStream<'a, E, S: ?Sized> {
    engine: &'a Engine<E, S>,
    changes: Changes,
    dirty: Dirty,
    known: BTreeMap<ContainerId, Record>,
    events: VecDeque<Event>,
}

impl<E: Executor, S: StateStore + ?Sized + 'static> Engine<E, S> {
    /// Watches what happens to the containers from now on, caused by any process.
    ///
    /// Nothing is polled: the kernel reports changes below the state root, so the store has
    /// to keep its records there, as [`reaper_state::open`] does.
    ///
    /// # Errors
    /// The root cannot be made or watched; a record cannot be read.
    pub async fn watch(&self) -> Result<EventStream<'_, E, S>> {
        let mut watch = EventStream {
            engine: self,
            changes: Changes::below(self.root.path()).map_err(not_watched(self.root.path()))?,
            dirty: Dirty {
                all: true,
                ids: BTreeSet::new(),
            },
            known: BTreeMap::new(),
            events: VecDeque::new(),
        };
        watch.look().await?;
        watch.events.clear();
        Ok(watch)
    }
}

impl<E: Executor, S: StateStore + ?Sized + 'static> EventStream<'_, E, S> {
    /// Waits for the next event. Those of one container come in the order of its life, and none
    /// is left out: what was not seen by itself is concluded from the record. Except for a
    /// container that came and went between two looks, and for the start of one that a signal
    /// ended before its start was committed. It may be dropped while it waits.
    ///
    /// An exit that is not committed yet is committed, as by [`Engine::state`].
    ///
    /// # Errors
    /// The store as a whole cannot be read; the root was removed, moved or unmounted; the kernel has
    /// no inotify(7) watch left for a container (`fs.inotify.max_user_watches`). Events would be
    /// missed from then on, so this is the end: later calls fail too, without waiting. A single
    /// record that cannot be read is skipped.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.dirty.is_empty() {
                let root = self.engine.root.path();
                self.dirty = self.changes.wait().await.map_err(not_watched(root))?;
            }
            self.look().await?;
        }
    }

    /// Looks at what may have changed. What was looked at is forgotten step by step, so that
    /// nothing is left out if this is dropped meanwhile.
    async fn look(&mut self) -> Result<()> {
        if self.dirty.all {
            let ids = self.engine.list().await?;
            self.dirty.ids.extend(ids);
            self.dirty.ids.extend(self.known.keys().cloned());
            self.dirty.all = false;
        }
        while let Some(id) = self.dirty.ids.first().cloned() {
            self.look_at(&id).await?;
            self.dirty.ids.remove(&id);
        }
        Ok(())
    }

    async fn look_at(&mut self, id: &ContainerId) -> Result<()> {
        // Before the record is read, or a change in between would be missed.
        let dir = self.engine.root.container(id);
        let followed = self.changes.follow(dir.path(), id);
        followed.map_err(not_watched(dir.path()))?;
        let record = match self.engine.state(id).await {
            Ok(record) => record,
            Err(Error::Store(StoreError::NotFound { .. })) => {
                self.deleted(id);
                return Ok(());
            }
            Err(error) => {
                tracing::debug!(%id, "watch: {error}");
                return Ok(());
            }
        };
        let another = |known: &Record| known.created != record.created;
        if self.known.get(id).is_some_and(another) {
            self.deleted(id);
        }
        let changes = between(self.known.get(id), &record);
        let events = changes.into_iter().map(|(at, change)| Event {
            id: id.clone(),
            at,
            change,
        });
        self.events.extend(events);
        self.known.insert(id.clone(), record);
        Ok(())
    }

    fn deleted(&mut self, id: &ContainerId) {
        let known = self.known.remove(id);
        // No event was reported for a container whose create failed.
        if known.is_some_and(|record| record.status != Status::Creating) {
            self.events.push_back(Event {
                id: id.clone(),
                at: Timestamp::now(),
                change: EventKind::Deleted,
            });
        }
    }
}

fn not_watched(path: &Path) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Folder {
        operation: "watch",
        path: path.to_owned(),
        source,
    }
}

/// What has happened between two records of one container, in order.
fn between(before: Option<&Record>, now: &Record) -> Vec<(Timestamp, EventKind)> {
    let mut changes = Vec::new();
    if now.status == Status::Creating {
        return changes;
    }
    let was = before.map_or(Status::Creating, |record| record.status);
    if was == Status::Creating {
        changes.push((now.created, EventKind::Created));
    }
    if let Some(started) = started(now)
        && before.is_none_or(started_untold)
    {
        changes.push((started, EventKind::Started));
    }
    match (was, now.status) {
        (Status::Paused, Status::Running) => changes.push((Timestamp::now(), EventKind::Resumed)),
        (was, Status::Paused) if was != Status::Paused => {
            changes.push((Timestamp::now(), EventKind::Paused));
        }
        _ => {}
    }
    if let Some(exit) = &now.exit
        && before.is_none_or(|record| record.exit.is_none())
    {
        changes.push((exit.at, EventKind::Stopped(exit.clone())));
    }
    changes
}

/// When a container's program was executed. Its end may be known before that is committed, and then
/// the time of the end has to do.
fn started(record: &Record) -> Option<Timestamp> {
    let exit = record.exit.as_ref();
    let ended = exit.filter(|exit| match exit.status {
        // A process that was not started is killed by a signal, or has the code of a program that
        // cannot be executed. Any other code is the program's.
        ExitStatus::Exited { code } => code != NOT_EXECUTED,
        _ => false,
    });
    record.started.or(ended.map(|exit| exit.at))
}

/// Whether the start was not reported with this record, and may still be.
fn started_untold(record: &Record) -> bool {
    started(record).is_none() && record.exit.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: Status) -> Record {
        let mut record = Record::new("web".parse().unwrap(), "/bundle".into());
        record.status = status;
        record
    }

    fn ended(code: u8) -> Record {
        let mut record = record(Status::Stopped);
        record.exit = Some(Exit::new(ExitStatus::Exited { code }, Timestamp::now()));
        record
    }

    fn names(before: Option<&Record>, now: &Record) -> Vec<&'static str> {
        let changes = between(before, now);
        changes.iter().map(|(_, change)| change.as_str()).collect()
    }

    #[test]
    fn changes_that_were_missed_follow_from_the_record() {
        let mut now = ended(0);
        assert_eq!(names(None, &record(Status::Creating)), [""; 0]);
        assert_eq!(names(None, &now), ["created", "started", "stopped"]);
        let created = record(Status::Created);
        assert_eq!(names(Some(&created), &now), ["started", "stopped"]);
        now.started = Some(now.created);
        assert_eq!(names(Some(&ended(0)), &now), [""; 0], "told of already");
    }

    #[test]
    fn process_that_never_ran_has_no_start_event() {
        let created = record(Status::Created);
        assert_eq!(names(Some(&created), &ended(127)), ["stopped"]);
        let mut killed = ended(0);
        let status = ExitStatus::Signaled {
            signal: 9,
            core: false,
        };
        killed.exit.as_mut().unwrap().status = status;
        assert_eq!(names(Some(&created), &killed), ["stopped"]);
        let mut late = killed.clone();
        late.started = Some(late.created);
        assert_eq!(names(Some(&killed), &late), [""; 0], "not after its end");
    }

    #[test]
    fn freezing_and_thawing_are_reported() {
        let (mut running, mut paused) = (record(Status::Running), record(Status::Paused));
        running.started = Some(running.created);
        paused.started = Some(paused.created);
        assert_eq!(names(Some(&running), &paused), ["paused"]);
        assert_eq!(names(Some(&paused), &running), ["resumed"]);
    }
}
