//! Files that a crash leaves whole.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::folder::Folder;

/// Tells apart the staged files of one process.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// Writes `contents` to `path`, replacing what is there.
///
/// When it returns `Ok` the contents are durable (write, fsync, rename, fsync of the folder); a
/// crash at any time leaves the old contents or the new ones. The file's mode is 0600. It may be
/// called by any number of threads and processes at once: one of them is the last.
///
/// # Errors
/// The step that failed. `path` is then unchanged, except when the very last step failed, the
/// fsync of the folder: then the new contents are there, but perhaps not after a crash. Nothing
/// else is left behind, except after a crash a file that [`is_staged`] tells.
pub fn write_atomic(path: &Path, contents: &[u8]) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(invalid)?;
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(invalid()),
    };
    let folder = Folder::open(folder)?;
    let number = STAGED.fetch_add(1, Ordering::Relaxed);
    let staged = format!("{}{}.{number}", staged_prefix(name), process::id());
    folder.stage(&staged, contents)?;
    if let Err(error) = folder.rename(&staged, name) {
        let _ = folder.remove(&staged);
        return Err(error);
    }
    folder.sync()
}

/// Whether a file that is called `found` is what [`write_atomic`] leaves after a crash, or has not yet
/// renamed, of a file called `name`.
pub fn is_staged(found: &str, name: &str) -> bool {
    found.starts_with(&staged_prefix(name))
}

fn staged_prefix(name: &str) -> String {
    format!(".{name}.")
}

/// Makes the folder `path` and those above it that are missing, with mode 0711, durably: others
/// may pass through them, and not look around.
///
/// # Errors
/// The folder that could not be made. Those above it may have been.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent() else {
                return Err(error);
            };
            create_dir_all(parent)?;
            return create_dir_all(path);
        }
        Err(error) => return Err(error),
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => Folder::open(parent)?.sync(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
