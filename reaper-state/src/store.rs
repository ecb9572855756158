//! The contract of a store.

use std::{
    io,
    path::{Path, PathBuf},
};

use reaper_spec::{ContainerId, Status, StoreKind};

use crate::{Record, Revision};

/// A record, and the revision at which it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionedRecord {
    /// The record.
    pub record: Record,
    /// Its revision, to be handed to [`StateStore::update`].
    pub revision: Revision,
}

impl VersionedRecord {
    /// `record`, as it was in the store at `revision`.
    pub fn new(record: Record, revision: Revision) -> Self {
        Self { record, revision }
    }
}

/// Keeps the records of containers.
///
/// # Contract
/// * **Durable on `Ok`.** What [`create`](Self::create), [`update`](Self::update) and
///   [`delete`](Self::delete) acknowledged is there after a crash of the process or of the
///   machine, as far as the medium is durable at all. On `Err` the record is as before, as far as
///   a medium that fails lets a store go back.
/// * **Atomic.** A reader sees a whole record, before or after a change, never between.
/// * **Compare-and-swap.** `update` changes a record only if it has not changed since the revision
///   was read: with any number of processes on one store, exactly one of those that update the
///   same revision succeeds, and the others get [`Error::Conflict`].
/// * **Ordered.** What one caller has had acknowledged, every caller reads from then on. Changes of
///   one container have one order, that of their revisions; those of different containers have
///   none among each other.
/// * **Short and blocking.** A call waits for the medium and for other calls' turns at it, and for
///   nothing else: never for a container, a peer's work or a timer. It may be called from any
///   thread; an async caller moves it off its executor's thread.
/// * **Not to be cancelled.** A call runs to its end. If its process is killed in it, the change
///   has been made, whole, or has not.
/// * **Not idempotent.** After an [`Error::Io`] the caller may repeat the call. After a crash of
///   its own it reads what there is: a repeated `create` is [`Error::AlreadyExists`], a repeated
///   `update` [`Error::Conflict`], a repeated `delete` [`Error::NotFound`] if the first was made.
/// * **Nothing invented.** What cannot be read is an error that names it, never an empty or a
///   default record.
///
/// The suite in `conformance` (feature `conformance`) checks these rules on any store. References,
/// [`Box`] and [`Arc`](std::sync::Arc) of a store are stores.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait StateStore: Send + Sync {
    /// Adds a container.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is one of this id.
    fn create(&self, record: &Record) -> Result<Revision, Error>;

    /// Reads a container.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] or [`Error::Newer`] if what is there is no record
    /// of ours.
    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error>;

    /// Replaces the record of `record.id`, if it still is at `expected`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not; [`Error::NotFound`].
    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error>;

    /// Removes a container, whatever its status is and also if its record is unreadable or newer.
    /// Its files that are not the store's are not touched.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    fn delete(&self, id: &ContainerId) -> Result<(), Error>;

    /// The ids of all containers, sorted, those with unreadable records included: read them one
    /// by one with [`get`](Self::get). A store that was never written to is empty.
    ///
    /// # Errors
    /// The store itself cannot be read.
    fn list(&self) -> Result<Vec<ContainerId>, Error>;
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such container.
    #[error("container {id} does not exist")]
    NotFound {
        /// The container.
        id: ContainerId,
    },
    /// The id is taken.
    #[error("container {id} exists already")]
    AlreadyExists {
        /// The container.
        id: ContainerId,
    },
    /// The record is not at the expected revision.
    #[error("container {id} was changed by another process at the same time (it is {actual} now)")]
    Conflict {
        /// The container.
        id: ContainerId,
        /// What it is now.
        actual: Status,
    },
    /// What is stored is no record.
    #[error("{}: not a container's record: {reason}; `reaper-runtime delete --force {id}` removes it", path.display())]
    Corrupt {
        /// The container.
        id: ContainerId,
        /// Where the record should be.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The record was written by a newer Reaper.
    #[error("{}: record of format version {found}, this program reads up to {known}: use the Reaper that wrote it", path.display())]
    Newer {
        /// The container.
        id: ContainerId,
        /// Where the record is.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The store as a whole was written by a newer Reaper.
    #[error("{}: store of format version {found}, this program reads up to {known}: use the Reaper that wrote it", path.display())]
    NewerStore {
        /// Where the store is.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The record cannot be written in the store's format.
    #[error("container {id}: its record cannot be stored: {reason}")]
    Encode {
        /// The container.
        id: ContainerId,
        /// What is wrong.
        reason: String,
    },
    /// The store was left out when this program was built.
    #[error(
        "the store {kind} is not in this program, which was built without that feature: choose another one by `store`, or \
         build it with the feature {kind}"
    )]
    FeatureDisabled {
        /// The store.
        kind: StoreKind,
    },
    /// The medium failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Error {
    /// The error of the system that the operation on `path` met with.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}
