//! Reading the records that monitors leave in a container's folder.

use std::{fs, io, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use crate::protocol::VERSION;

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a record; `None` if there is none, or if the machine stopped before its contents, which
/// nobody had made durable, were written.
///
/// # Errors
/// It cannot be read, is no record, or was written by a newer release.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let json = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    if json.is_empty() {
        return Ok(None);
    }
    let Versioned { version } = serde_json::from_slice(&json)?;
    if version > VERSION {
        let reason = format!("record of version {version}, this program reads up to {VERSION}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(serde_json::from_slice(&json)?))
}
