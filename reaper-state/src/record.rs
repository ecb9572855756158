//! What a store keeps of a container.

use std::{collections::BTreeMap, path::PathBuf};

use reaper_spec::{ContainerId, Exit, ProcessIdentity, Status, Timestamp};

/// The version of the record's format. A store refuses a newer one by name.
pub const RECORD_VERSION: u32 = 1;

/// What a store keeps of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The container.
    pub id: ContainerId,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// What it is doing.
    pub status: Status,
    /// Its init process, from `created` on. Kept after the end.
    pub process: Option<ProcessIdentity>,
    /// The monitor that waits on the init process.
    pub monitor: Option<ProcessIdentity>,
    /// When the container was created.
    pub created: Timestamp,
    /// When its program was executed.
    pub started: Option<Timestamp>,
    /// How and when it ended.
    pub exit: Option<Exit>,
    /// The bundle's annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    /// A container whose id has just been taken: `creating`, now, without a process.
    pub fn new(id: ContainerId, bundle: PathBuf) -> Self {
        Self {
            id,
            bundle,
            status: Status::Creating,
            process: None,
            monitor: None,
            created: Timestamp::now(),
            started: None,
            exit: None,
            annotations: BTreeMap::new(),
        }
    }
}
