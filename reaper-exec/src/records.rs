//! Reading and writing the records that monitors leave in a container's folder.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use reaper_spec::Exit;
use reaper_state::{ContainerDir, durable};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    json,
    protocol::{ExitRecord, VERSION},
};

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// More than any record has.
const MAX_RECORD: u64 = 64 << 20;

/// Opens a record for reading. What is not a regular file is refused, and not waited for: to open a
/// FIFO in its place would block.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    Ok(file)
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Reads a record. `None` if there is none, or if it is empty: `plan.json` is written without
/// fsync(2), so a machine that stops may leave a file without contents.
///
/// # Errors
/// It cannot be read, is not a record, or was written by a newer release.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let mut json = Vec::new();
    match open(path) {
        Ok(file) => _ = file.take(MAX_RECORD).read_to_end(&mut json)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    parse(&json)
}

/// The same of a record's contents.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> io::Result<Option<T>> {
    if json.is_empty() {
        return Ok(None);
    }
    let Versioned { version } = json::parse(json)?;
    if version > VERSION {
        let reason = format!("record of version {version}, this program reads up to {VERSION}");
        return Err(invalid(reason));
    }
    json::parse(json).map(Some)
}

/// Removes a record, or what is in its place.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir_all(path),
        removed => removed,
    }
}

/// Where `plan.json` is written before it is renamed.
pub(crate) fn staged_plan(dir: &ContainerDir) -> PathBuf {
    dir.cleanup_file().with_extension("new")
}

/// Removes what a monitor was writing when it was killed.
pub(crate) fn remove_staged_files(dir: &ContainerDir) {
    // What cannot be removed is found by the doctor.
    let _ = fs::remove_file(staged_plan(dir));
    let exit = dir.exit_file();
    let exit = exit.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(dir.path()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if durable::is_staged(&name.to_string_lossy(), &exit) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes the exit of a container to `exit.json`. It is durable when this returns.
pub(crate) fn write_exit(dir: &ContainerDir, exit: &Exit) -> io::Result<()> {
    let record = ExitRecord {
        version: VERSION,
        exit: exit.clone(),
    };
    durable::write_atomic(&dir.exit_file(), &serde_json::to_vec(&record)?)
}
