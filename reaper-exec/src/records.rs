//! Reading and writing the records that monitors leave in a container's folder.

use std::{fs, io, path::Path};

use reaper_spec::Exit;
use reaper_state::{ContainerDir, durable};
use serde::{Deserialize, de::DeserializeOwned};

use crate::protocol::{ExitRecord, VERSION};

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a record. `None` if there is none, or if it is empty: `plan.json` is written without
/// fsync(2), so a machine that stops may leave a file without contents.
///
/// # Errors
/// It cannot be read, is not a record, or was written by a newer release.
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

/// Writes the exit of a container to `exit.json`. It is durable when this returns.
pub(crate) fn write_exit(dir: &ContainerDir, exit: &Exit) -> io::Result<()> {
    let record = ExitRecord {
        version: VERSION,
        exit: exit.clone(),
    };
    durable::write_atomic(&dir.exit_file(), &serde_json::to_vec(&record)?)
}
