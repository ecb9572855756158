//! Making, removing and replacing files and directories.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, unlinkat},
    io::Errno,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    handle::{Handle, fd_link},
    walk::Cursor,
};
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

/// Removes `path` with everything below; it may be missing, and other processes may be removing it
/// too. Symlinks are removed, not followed, and what is mounted below is left alone, with an error.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.context("open", parent)?,
    };
    remove_entry(parent.as_fd(), path.file_name().unwrap_or_default())
}

/// The same of the entry `name` of the directory `parent`.
pub(crate) fn remove_entry(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
    // Most often a file, and then no walk is needed.
    if remove_one(parent, name).with_context("remove", || shown(parent, name))? {
        return Ok(());
    }
    let Some(parent) = Handle::at(parent, OsStr::new(".")).context("open", name)? else {
        return Ok(());
    };
    let mut cursor = Cursor::new(parent);
    // The names that are left in each directory on the way, and how often the last of them was gone
    // into.
    let mut todo = vec![(vec![name.to_owned()], 0)];
    while let Some((names, times)) = todo.last_mut() {
        let is_below = cursor.depth() > 0;
        let Some(name) = names.last().cloned() else {
            todo.pop();
            if !todo.is_empty() && !cursor.leave().context("go back from", name)? {
                let moved = io::Error::from(io::ErrorKind::NotFound);
                return Err(moved).context("go back to", name);
            }
            continue;
        };
        let path = || shown(cursor.as_fd(), &name);
        let removed = match remove_one(cursor.as_fd(), &name) {
            Err(Errno::ACCESS) if is_below => {
                // Without root a directory's mode keeps its owner out, as overlay's own work
                // directory's.
                let mode = fs::Permissions::from_mode(0o700);
                fs::set_permissions(cursor.dir().link(), mode)
                    .with_context("change the mode of", || cursor.dir().path())?;
                remove_one(cursor.as_fd(), &name)
            }
            removed => removed,
        };
        if removed.with_context("remove", path)? {
            names.pop();
            *times = 0;
            continue;
        }
        *times += 1;
        if *times > MAX_TIMES {
            // Another process makes files faster than they are removed.
            return Err(Errno::NOTEMPTY).with_context("remove", path);
        }
        let Some(dir) = cursor.entry(&name)? else {
            continue;
        };
        if !dir.shares_mount(cursor.dir()) {
            return Err(Errno::BUSY).with_context("remove what is mounted on", path);
        }
        let mut below = list(&dir)?;
        below.reverse();
        cursor.enter(&name, dir);
        todo.push((below, 0));
    }
    Ok(())
}

/// How many times a directory is emptied that another process fills meanwhile.
const MAX_TIMES: u32 = 16;

/// Removes a file or an empty directory, which may be gone. False if it is a directory with
/// something in it.
fn remove_one(parent: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(errno) => return Err(errno),
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The names in a directory, which its owner may not be able to read yet.
fn list(dir: &Handle) -> Result<Vec<OsString>, Error> {
    match dir.names() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(dir.link(), fs::Permissions::from_mode(0o700))
                .with_context("change the mode of", || dir.path())?;
            dir.names()
        }
        names => names,
    }
    .with_context("list", || dir.path())
}

fn shown(parent: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    fs::read_link(fd_link(&parent))
        .unwrap_or_default()
        .join(name)
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

/// Reads a regular file. What else is in its place, such as a FIFO, is not waited for.
///
/// # Errors
/// Those of open(2) and read(2); `InvalidInput` where it is no regular file.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        let kind = io::ErrorKind::InvalidInput;
        return Err(io::Error::new(kind, "it is no regular file"));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read_regular(path) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_files_place_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let [fifo, file] = ["fifo", "file"].map(|name| dir.path().join(name));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(&file, "{}").unwrap();
        for path in [&fifo, dir.path()] {
            let error = read_json::<()>(path).unwrap_err().to_string();
            assert!(error.ends_with("it is no regular file"), "{error}");
        }
        assert_eq!(read_regular(&file).unwrap(), b"{}");
    }
}
