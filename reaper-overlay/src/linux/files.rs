//! Making, removing and replacing files and directories.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::contract::{Context, Error};

/// Makes `path` and its parents, for root only.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context("make", path)
}

pub(crate) fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().context("look for", path)
}

/// Makes a directory; `false` if it existed.
pub(crate) fn make_new_dir(path: &Path) -> Result<bool, Error> {
    match rustix::fs::mkdir(path, rustix::fs::Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno).context("make", path),
    }
}

/// Removes `path` with everything below; it may be missing.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    let mut removed = fs::remove_dir_all(path);
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    if removed.as_ref().is_err_and(denied) {
        // Without root a directory's mode keeps its owner out, as overlay's own work directory's.
        open_up(path)?;
        removed = fs::remove_dir_all(path);
    }
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// Gives the owner of all directories at and below `root` access to them.
fn open_up(root: &Path) -> Result<(), Error> {
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        fs::set_permissions(&dir, Permissions::from_mode(0o700))
            .context("change the mode of", &dir)?;
        for entry in fs::read_dir(&dir).context("list", &dir)? {
            let entry = entry.context("list", &dir)?;
            if entry.file_type().context("stat", &dir)?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Removes the file `path`; it may be missing.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// Reads a JSON file; `None` if it is missing.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = read_file(path)?;
    text.map(|text| parse(path, &text)).transpose()
}

/// The same, of a format that has versions up to `known`.
///
/// The version is read first, so that a file of a newer format is refused as newer, and not as
/// corrupt for what changed in it. A file without a version is older than the first that has one.
pub(crate) fn read_versioned<T: DeserializeOwned>(
    path: &Path,
    known: u32,
) -> Result<Option<T>, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        version: u32,
    }
    let Some(text) = read_file(path)? else {
        return Ok(None);
    };
    let Versioned { version } = parse(path, &text)?;
    if version > known {
        return Err(Error::Newer {
            path: path.to_owned(),
            found: version,
            known,
        });
    }
    parse(path, &text).map(Some)
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read", path),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|source| Error::Corrupt {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a JSON file in one step (rename(2)): a reader finds the old or the new one, also after
/// a power cut.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(|source| Error::Corrupt {
        path: path.to_owned(),
        source,
    })?;
    let mut name = path.file_name().unwrap_or(OsStr::new("file")).to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new).context("make", &new)?;
    file.write_all(&text).context("write", &new)?;
    // Some filesystems rename before they write: a power cut would leave an empty file.
    file.sync_data().context("write to disk", &new)?;
    fs::rename(&new, path).context("rename to", path)
}

/// The same, and it is on disk afterwards.
pub(crate) fn write_json_durably<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    write_json(path, value)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.context("write to disk", dir)
}
