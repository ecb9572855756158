//! Errors of SQLite as those of a store.

use std::{io, path::Path};

use rusqlite::ErrorCode;

use crate::Error;

/// What SQLite says, as an error of the medium.
pub(super) fn failed(operation: &'static str, path: &Path, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => io::ErrorKind::ResourceBusy,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => io::ErrorKind::InvalidData,
        Some(ErrorCode::PermissionDenied) => io::ErrorKind::PermissionDenied,
        Some(ErrorCode::ReadOnly) => io::ErrorKind::ReadOnlyFilesystem,
        _ => io::ErrorKind::Other,
    };
    Error::Io {
        operation,
        path: path.to_owned(),
        source: io::Error::new(kind, error),
    }
}
