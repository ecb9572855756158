//! Files that a crash leaves whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

/// Writes `contents` to `path`, replacing what is there.
///
/// When it returns `Ok` the contents are durable (write, fsync, rename, fsync of the folder); a
/// crash at any time leaves the old contents or the new ones. The file's mode is 0600. Concurrent
/// calls by several threads of one process for the same path must be serialised by the caller.
///
/// # Errors
/// The step that failed; `path` is then unchanged and nothing else is left behind, except after a
/// crash a file whose name starts with a dot.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let staged = stage(path, contents)?;
    let renamed = fs::rename(&staged, path);
    if renamed.is_err() {
        let _ = fs::remove_file(&staged);
    }
    renamed?;
    File::open(folder)?.sync_all()
}

fn stage(path: &Path, contents: &[u8]) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let staged = path.with_file_name(format!(".{}.{}", name.display(), process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()
        });
    match written {
        Ok(()) => Ok(staged),
        Err(error) => {
            let _ = fs::remove_file(&staged);
            Err(error)
        }
    }
}
