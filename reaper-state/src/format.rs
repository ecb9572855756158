//! How a record is written: JSON, the contents of `state.json`.
//!
//! Public for those who write a store of their own: with it, their records read like ours and are
//! checked like ours.
//!
//! | key | |
//! |---|---|
//! | `version` | [`RECORD_VERSION`] |
//! | `revision` | 32 hexadecimal digits |
//! | `id`, `bundle`, `status`, `annotations` | as in the OCI state |
//! | `pid` | the init process, 0 when there is none; for readers, taken from `process` |
//! | `exit_code` | once ended; for readers, taken from `exit` |
//! | `process`, `monitor` | `pid`, `start_time` and `boot_id` |
//! | `created`, `started` | RFC 3339 |
//! | `exit` | `how` (`exited`, `signaled`, `lost`) with its detail, and `at` |
//!
//! Keys that are not known are ignored, so a key can be added without a new version.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use reaper_spec::{ContainerId, Exit, ProcessIdentity, Status, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{RECORD_VERSION, Record, Revision, VersionedRecord};

/// Why bytes are no record, or a record cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// They were written by a newer Reaper.
    #[error("record of format version {found}, this program reads up to {RECORD_VERSION}")]
    Newer {
        /// The version.
        found: u32,
    },
    /// There are none.
    #[error("it is empty")]
    Empty,
    /// They are not JSON, or the JSON is no record.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A value is not what a record has there.
    #[error("{place}: {source}")]
    Value {
        /// Which one it is, for example `process.start_time`.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is no format version of ours in them.
    #[error("there is no record version in it")]
    Unversioned,
    /// The revision is not 32 hexadecimal digits.
    #[error("{0:?} is no revision")]
    Revision(String),
}

#[derive(Deserialize)]
struct Peek {
    version: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u32,
    revision: Cow<'a, str>,
    id: Cow<'a, ContainerId>,
    bundle: Cow<'a, Path>,
    status: Status,
    #[serde(skip_deserializing)]
    pid: u32,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    exit_code: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Cow<'a, ProcessIdentity>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<Cow<'a, ProcessIdentity>>,
    created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<Cow<'a, Exit>>,
    #[serde(default)]
    annotations: Cow<'a, BTreeMap<String, String>>,
}

/// Writes a record at a revision.
///
/// # Errors
/// [`FormatError::Json`] if the bundle's path is not UTF-8.
pub fn encode(record: &Record, revision: &Revision) -> Result<String, FormatError> {
    let document = Document {
        version: RECORD_VERSION,
        revision: Cow::Owned(revision.to_string()),
        id: Cow::Borrowed(&record.id),
        bundle: Cow::Borrowed(&record.bundle),
        status: record.status,
        pid: record.process.as_ref().map_or(0, |process| process.pid),
        exit_code: record.exit.as_ref().map(|exit| exit.status.code()),
        process: record.process.as_ref().map(Cow::Borrowed),
        monitor: record.monitor.as_ref().map(Cow::Borrowed),
        created: record.created,
        started: record.started,
        exit: record.exit.as_ref().map(Cow::Borrowed),
        annotations: Cow::Borrowed(&record.annotations),
    };
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// Reads what [`encode`] has written.
///
/// The version is looked at before anything else, so that a newer record is called newer
/// whatever else has changed in it.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<VersionedRecord, FormatError> {
    if bytes.is_empty() {
        return Err(FormatError::Empty);
    }
    let peek: Peek = serde_json::from_slice(bytes)?;
    match peek.version {
        None | Some(0) => return Err(FormatError::Unversioned),
        Some(version) if version > u64::from(RECORD_VERSION) => {
            return Err(FormatError::Newer {
                found: u32::try_from(version).unwrap_or(u32::MAX),
            });
        }
        Some(_) => {}
    }
    let document = read_document(bytes)?;
    let revision = document
        .revision
        .parse()
        .map_err(|_| FormatError::Revision(document.revision.into_owned()))?;
    let record = Record {
        id: document.id.into_owned(),
        bundle: document.bundle.into_owned(),
        status: document.status,
        process: document.process.map(Cow::into_owned),
        monitor: document.monitor.map(Cow::into_owned),
        created: document.created,
        started: document.started,
        exit: document.exit.map(Cow::into_owned),
        annotations: document.annotations.into_owned(),
    };
    Ok(VersionedRecord { record, revision })
}

fn read_document(bytes: &[u8]) -> Result<Document<'static>, FormatError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        let source = error.into_inner();
        match place.as_str() {
            "." => FormatError::Json(source),
            _ => FormatError::Value { place, source },
        }
    })
}
