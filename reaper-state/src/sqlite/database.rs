//! Opening a database, and telling whether it still is the one at its path.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, futimens};

use super::{error::failed, schema};
use crate::{Error, durable, folder::Folder, lock::lock_exclusive};

/// How long a call waits for other programs that write to the database; ours queue.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    queue: Queue,
    file: (u64, u64),
}

impl Database {
    /// The database at `path`, with the schema of this program. `None` if there is none and
    /// `make` is false.
    pub(super) fn open(path: &Path, make: bool) -> Result<Option<Self>, Error> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if make {
            durable::create_dir_all(parent).map_err(Error::io("make", parent))?;
        } else if is_missing(path) {
            return Ok(None);
        }
        refuse_other_than_file(path)?;
        let queue = Queue::open(path)?;
        // One process at a time makes the file, its schema and its journal mode: SQLite itself
        // would answer some of them that it is busy.
        let turn = queue.wait()?;
        if make {
            make_file(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection =
            Connection::open_with_flags(path, flags).map_err(|e| failed("open", path, e))?;
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(|e| failed("open", path, e))?;
        schema::bring_up_to_date(&mut connection, path, schema::MIGRATIONS)?;
        Folder::open(parent)
            .and_then(|parent| parent.sync())
            .map_err(Error::io("sync", parent))?;
        let Some(file) = identity(path) else {
            return Err(Error::io("open", path)(io::ErrorKind::NotFound.into()));
        };
        drop(turn);
        Ok(Some(Self {
            connection,
            queue,
            file,
        }))
    }

    /// Whether this database is the file at `path`.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        identity(path) == Some(self.file)
    }

    /// To read.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// To write, once those before us are done.
    pub(super) fn in_turn(&mut self) -> Result<(&mut Connection, Turn<'_>), Error> {
        Ok((&mut self.connection, self.queue.wait()?))
    }
}

/// Makes the file, so that SQLite's other files get its mode too. Closing a file drops all locks
/// that this process has on it: it is new, so there are none.
fn make_file(path: &Path) -> Result<(), Error> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop).map_err(Error::io("make", path)),
    }
}

/// Who may write next. SQLite alone would sleep and try again, and let the luckiest through.
#[derive(Debug)]
struct Queue {
    file: File,
    path: PathBuf,
}

/// It is the caller's turn until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Queue);

impl Queue {
    fn open(database: &Path) -> Result<Self, Error> {
        let mut path = database.as_os_str().to_owned();
        path.push("-lock");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        Ok(Self { file, path })
    }

    fn wait(&self) -> Result<Turn<'_>, Error> {
        lock_exclusive(&self.file).map_err(Error::io("lock", &self.path))?;
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // SQLite makes a change visible by shared memory, for which inotify has no event. A
        // program that watches the folder gets one for these times. They are only a hint, so a
        // failure is ignored.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = futimens(&self.0.file, &times);
        let _ = flock(&self.0.file, FlockOperation::Unlock);
    }
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// SQLite says of all of these that it is "unable to open database file".
fn refuse_other_than_file(path: &Path) -> Result<(), Error> {
    let refused = |reason: &str| {
        let reason = format!("{reason}, where the database should be: move it away");
        Err(Error::io("open", path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            reason,
        )))
    };
    if is_missing(path) {
        return Ok(());
    }
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) if found.is_dir() => refused("it is a folder"),
        Ok(_) => refused("it is not a regular file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refused("it is a symbolic link that leads nowhere")
        }
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}
