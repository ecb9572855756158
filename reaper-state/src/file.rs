//! One folder for each container, one file for its record.

use std::{fs, io, path::Path};

use reaper_spec::ContainerId;
use rustix::{fs::FileType, io::Errno};

use crate::{
    ContainerDir, Error, RECORD_VERSION, Record, Revision, RootDir, StateStore, Stored, durable,
    folder::{Content, Folder},
    format::{self, FormatError},
};

const STATE: &str = "state.json";
const PID: &str = "pid";
/// Written before it gets the name of one of the above. Fixed names: the lock leaves one writer,
/// and what a crash leaves behind is found without searching for it.
const STAGED_STATE: &str = ".state.json.new";
const STAGED_PID: &str = ".pid.new";
/// A deleted record until that is durable.
const DELETED: &str = ".state.json.deleted";

/// More than any record has.
const MAX_RECORD: usize = 16 << 20;

/// Records in files: `ROOT/ID/state.json`, and the init process's pid in `ROOT/ID/pid`.
///
/// Any number of processes may use one root. A change is made under an flock on the container's
/// folder, which the kernel ends with the process that holds it; reading takes no lock. Nobody
/// else may flock that folder.
///
/// * A change is written to a new file, fsync'd, renamed, and the folder fsync'd: a crash leaves
///   the old record or the new one, and at most files whose names start with `.state.json.` or
///   `.pid.`, which the next change removes.
/// * Folders are made with mode 0700, the root and what is missing above it with 0711.
/// * A folder without `state.json` is no container. [`create`](StateStore::create) takes it over
///   if it belongs to the caller: whoever makes containers may put files there first.
/// * [`delete`](StateStore::delete) removes what the store has written, readable or not, and the
///   folder if nothing else is in it.
/// * Entries of the root that are no [`ContainerId`] or have no `state.json` are ignored.
/// * Links in the place of a container's folder or its record are refused as [`Error::Corrupt`].
///
/// ```
/// use reaper_spec::{ContainerId, Status};
/// use reaper_state::{FileStore, Record, RootDir, StateStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let store = FileStore::new(RootDir::new(folder.path().join("state")));
/// let id = ContainerId::new("web-1")?;
/// let mut record = Record::new(id.clone(), "/run/bundles/web-1".into());
/// let revision = store.create(&record)?;
/// record.status = Status::Stopped;
/// store.update(&revision, &record)?;
/// assert!(store.update(&revision, &record).is_err(), "that revision is gone");
/// assert_eq!(store.get(&id)?.record, record);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FileStore {
    root: RootDir,
}

impl FileStore {
    /// The store below `root`. Nothing is read or made before it is needed.
    pub fn new(root: RootDir) -> Self {
        Self { root }
    }

    /// Where the records are.
    pub fn root(&self) -> &RootDir {
        &self.root
    }

    fn open_root(&self) -> Result<Option<Folder>, Error> {
        match Folder::open(self.root.path()) {
            Ok(root) => Ok(Some(root)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", self.root.path())(error)),
        }
    }

    /// The folder of a container; `None` if there is none.
    fn open<'a>(&self, root: &Folder, id: &'a ContainerId) -> Result<Option<Container<'a>>, Error> {
        let dir = self.root.container(id);
        match root.open_in(id.as_str()) {
            Ok(folder) => Ok(Some(Container { id, dir, folder })),
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT) => Ok(None),
                Some(Errno::NOTDIR | Errno::LOOP) => {
                    let kind = root
                        .kind_of(id.as_str())
                        .map_err(failed("look at", dir.path()))?;
                    if kind == Some(FileType::Symlink) {
                        return Err(corrupt(id, &dir, "its folder is a symbolic link"));
                    }
                    Ok(None)
                }
                _ => Err(failed("open", dir.path())(error)),
            },
        }
    }

    /// The folder of a container, locked. A folder that was removed or replaced before the lock
    /// was there is not the container's any more.
    fn lock<'a>(&self, root: &Folder, id: &'a ContainerId) -> Result<Option<Locked<'a>>, Error> {
        loop {
            let Some(container) = self.open(root, id)? else {
                return Ok(None);
            };
            container
                .folder
                .lock()
                .map_err(failed("lock", container.dir.path()))?;
            let locked = Locked(container);
            let current = locked.0.folder.is_entry_of(root, id.as_str());
            if current.map_err(failed("look at", locked.0.dir.path()))? {
                return Ok(Some(locked));
            }
        }
    }

    fn make(&self, record: &Record) -> Result<Revision, Error> {
        let path = self.root.path();
        durable::make_folders(path).map_err(failed("make", path))?;
        let root = Folder::open(path).map_err(failed("open", path))?;
        let name = record.id.as_str();
        let folder = self.root.container(&record.id);
        loop {
            let made = root.make_in(name).map_err(failed("make", folder.path()))?;
            let Some(locked) = self.lock(&root, &record.id)? else {
                let kind = root
                    .kind_of(name)
                    .map_err(failed("look at", folder.path()))?;
                if matches!(kind, None | Some(FileType::Directory)) {
                    continue;
                }
                return Err(failed("open", folder.path())(Errno::NOTDIR.into()));
            };
            let created = root
                .sync()
                .map_err(failed("sync", path))
                .and_then(|()| locked.0.create(record, made));
            if created.is_err() && made {
                let _ = root.remove(name);
            }
            return created;
        }
    }
}

impl StateStore for FileStore {
    fn create(&self, record: &Record) -> Result<Revision, Error> {
        self.make(record)
    }

    fn get(&self, id: &ContainerId) -> Result<Stored, Error> {
        let missing = || Error::NotFound { id: id.clone() };
        let root = self.open_root()?.ok_or_else(missing)?;
        let container = self.open(&root, id)?.ok_or_else(missing)?;
        container.read().map(|(stored, _)| stored)
    }

    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        let missing = || Error::NotFound {
            id: record.id.clone(),
        };
        let root = self.open_root()?.ok_or_else(missing)?;
        let locked = self.lock(&root, &record.id)?.ok_or_else(missing)?;
        locked.0.update(expected, record)
    }

    fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        let missing = || Error::NotFound { id: id.clone() };
        let root = self.open_root()?.ok_or_else(missing)?;
        let locked = match self.lock(&root, id) {
            Err(Error::Corrupt { path, .. }) => {
                // A link: what it leads to is not ours.
                return root
                    .remove(id.as_str())
                    .and_then(|()| root.sync())
                    .map_err(failed("remove", &path));
            }
            locked => locked?.ok_or_else(missing)?,
        };
        locked.0.delete()?;
        match root.remove(id.as_str()) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!(container = %id, %error, "the folder of a deleted container stays");
            }
            _ => {}
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        let Some(root) = self.open_root()? else {
            return Ok(Vec::new());
        };
        let read = failed("list", self.root.path());
        let mut ids = fs::read_dir(self.root.path())
            .and_then(|entries| {
                let mut ids = Vec::new();
                for entry in entries {
                    let name = entry?.file_name();
                    let id = name.to_str().and_then(|name| ContainerId::new(name).ok());
                    ids.extend(id);
                }
                Ok(ids)
            })
            .map_err(read)?;
        // What cannot even be looked at is listed: reading it says why.
        ids.retain(|id| {
            let state = Path::new(id.as_str()).join(STATE);
            root.kind_of(state).map_or(true, |kind| kind.is_some())
        });
        ids.sort_unstable();
        Ok(ids)
    }
}

/// A container's folder. What changes something needs the lock.
struct Container<'a> {
    id: &'a ContainerId,
    dir: ContainerDir,
    folder: Folder,
}

/// A container's folder, locked until it is dropped.
struct Locked<'a>(Container<'a>);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.folder.unlock();
    }
}

impl Container<'_> {
    /// The record, and the bytes that it was read from.
    fn read(&self) -> Result<(Stored, Vec<u8>), Error> {
        let path = self.dir.state_file();
        let content = self
            .folder
            .read(STATE, MAX_RECORD)
            .map_err(failed("read", &path))?;
        let bytes = match content {
            Content::Missing => {
                return Err(Error::NotFound {
                    id: self.id.clone(),
                });
            }
            Content::Alien(reason) => return Err(corrupt(self.id, &self.dir, reason)),
            Content::Bytes(bytes) => bytes,
        };
        match format::decode(&bytes) {
            Ok(stored) if stored.record.id == *self.id => Ok((stored, bytes)),
            Ok(stored) => {
                let reason = format!("it is the record of {}", stored.record.id);
                Err(corrupt(self.id, &self.dir, &reason))
            }
            Err(FormatError::Newer { found }) => Err(Error::Newer {
                id: self.id.clone(),
                path,
                found,
                known: RECORD_VERSION,
            }),
            Err(error) => Err(corrupt(self.id, &self.dir, &error.to_string())),
        }
    }

    fn create(&self, record: &Record, made: bool) -> Result<Revision, Error> {
        let taken = self
            .folder
            .kind_of(STATE)
            .map_err(failed("read", &self.dir.state_file()))?;
        if taken.is_some() {
            return Err(Error::AlreadyExists {
                id: self.id.clone(),
            });
        }
        if !made {
            self.folder
                .make_private()
                .map_err(failed("take over", self.dir.path()))?;
        }
        self.commit(record, None)
    }

    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        let (current, bytes) = self.read()?;
        if current.revision != *expected {
            let actual = current.record.status;
            return Err(Error::Conflict {
                id: self.id.clone(),
                actual,
            });
        }
        self.commit(record, Some((&current.record, &bytes)))
    }

    /// Replaces the record, or makes the first. The pid's file goes first: if a crash comes
    /// between them, the record still says that it must be written.
    fn commit(&self, record: &Record, old: Option<(&Record, &[u8])>) -> Result<Revision, Error> {
        let path = self.dir.state_file();
        let revision = Revision::unique().map_err(failed("write", &path))?;
        let unstorable = |reason| Error::Unstorable {
            id: self.id.clone(),
            reason,
        };
        let bytes =
            format::encode(record, &revision).map_err(|error| unstorable(error.to_string()))?;
        if bytes.len() > MAX_RECORD {
            return Err(unstorable(format!("it has {} bytes", bytes.len())));
        }
        let pid = |record: &Record| record.process.as_ref().map(|process| process.pid);
        let pids_change = old.is_none_or(|(old, _)| pid(old) != pid(record));
        let written = self.folder.stage(STAGED_STATE, &bytes).and_then(|()| {
            if pids_change {
                self.put_pid(pid(record))?;
            }
            self.folder.rename(STAGED_STATE, STATE)?;
            self.folder.sync()
        });
        if let Err(error) = written {
            self.undo(old, pids_change.then(|| old.and_then(|(old, _)| pid(old))));
            return Err(failed("write", &path)(error));
        }
        Ok(revision)
    }

    fn put_pid(&self, pid: Option<u32>) -> io::Result<()> {
        match pid {
            Some(pid) => {
                self.folder
                    .stage(STAGED_PID, format!("{pid}\n").as_bytes())?;
                self.folder.rename(STAGED_PID, PID)
            }
            None => self.folder.remove(PID),
        }
    }

    /// Goes back to the old record, as far as a failing medium lets one.
    fn undo(&self, old: Option<(&Record, &[u8])>, pid: Option<Option<u32>>) {
        let _ = self.folder.remove(STAGED_STATE);
        let _ = self.folder.remove(STAGED_PID);
        if let Some(pid) = pid {
            let _ = self.put_pid(pid);
        }
        let unchanged = match (self.folder.read(STATE, MAX_RECORD), old) {
            (Ok(Content::Bytes(now)), Some((_, old))) => now == old,
            (Ok(Content::Missing), None) => true,
            _ => false,
        };
        let undone = match old {
            _ if unchanged => Ok(()),
            Some((_, old)) => self
                .folder
                .stage(STAGED_STATE, old)
                .and_then(|()| self.folder.rename(STAGED_STATE, STATE)),
            None => self.folder.remove(STATE),
        };
        if let Err(error) = undone {
            tracing::error!(container = %self.id, %error, "a failed change could not be undone");
        }
    }

    fn delete(&self) -> Result<(), Error> {
        let path = self.dir.state_file();
        match self.folder.rename(STATE, DELETED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound {
                    id: self.id.clone(),
                });
            }
            renamed => renamed.map_err(failed("remove", &path))?,
        }
        if let Err(error) = self.folder.sync() {
            let _ = self.folder.rename(DELETED, STATE);
            return Err(failed("remove", &path)(error));
        }
        for name in [DELETED, PID, STAGED_STATE, STAGED_PID] {
            if let Err(error) = self.folder.remove(name) {
                tracing::warn!(container = %self.id, name, %error, "a deleted container's file stays");
            }
        }
        Ok(())
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn corrupt(id: &ContainerId, dir: &ContainerDir, reason: &str) -> Error {
    Error::Corrupt {
        id: id.clone(),
        path: dir.state_file(),
        reason: reason.to_owned(),
    }
}
