//! Why an engine did not do what was asked.

use std::{io, path::PathBuf};

use reaper_spec::{ContainerId, InvalidTransition, Status};

use crate::executor::Error as ExecutorError;

/// The result of an engine's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The executor's reason.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The store's reason.
    #[error(transparent)]
    Store(#[from] reaper_state::Error),
    /// The node's policy does not allow it.
    #[error(transparent)]
    Policy(reaper_spec::Error),
    /// The container is not in a status in which this can be done.
    #[error("container {id}: {source}")]
    Transition {
        /// The container.
        id: ContainerId,
        /// Why not.
        source: InvalidTransition,
    },
    /// The container has not ended, and the deletion was not forced.
    #[error("container {id} is {status}: kill it first, or delete it by force")]
    NotStopped {
        /// The container.
        id: ContainerId,
        /// What it is doing.
        status: Status,
    },
    /// Another call deleted the container while this one was creating it, and so ended what it had begun.
    #[error("container {id} was deleted while it was being created")]
    DeletedMeanwhile {
        /// The container.
        id: ContainerId,
        /// How the creation ended, if not by its success: by the deletion, or of its own accord.
        source: Option<ExecutorError>,
    },
    /// The container's folder could not be made or removed.
    #[error("{operation} {}: {source}", path.display())]
    Folder {
        /// What was being done.
        operation: &'static str,
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}
