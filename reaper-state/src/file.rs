//! One folder for each container, one file for its record.

mod container;
mod error;

use std::{fs, io, path::Path};

use reaper_spec::ContainerId;
use rustix::{fs::FileType, io::Errno};

use self::{
    container::{Container, Locked, STATE},
    error::corrupt,
};
use crate::{
    Error, Record, Revision, StateRoot, StateStore, VersionedRecord, durable, folder::Folder,
};

/// Records in files: `ROOT/ID/state.json`, and the init process's pid in `ROOT/ID/pid`.
///
/// Any number of processes may use one root. A change is made under an flock on the container's
/// folder, which the kernel ends with the process that holds it; reading takes no lock. Other
/// programs must not flock that folder.
///
/// * A change is written to a new file, fsync'd, renamed, and the folder fsync'd: a crash leaves
///   the old record or the new one, and at most files whose names start with `.state.json.` or
///   `.pid.`, which the next change removes.
/// * Folders are made with mode 0700, the root and what is missing above it with 0711.
/// * A folder without `state.json` is no container. [`create`](StateStore::create) takes it over
///   if it belongs to the caller: an engine may put files there before it creates the record.
/// * [`delete`](StateStore::delete) removes what the store has written, readable or not, and the
///   folder if nothing else is in it.
/// * [`list`](StateStore::list) removes what a `create` or `delete` has left that was killed: a folder without
///   `state.json` that has such a file, and that no process has locked.
/// * Entries of the root that are no [`ContainerId`] or have no `state.json` are ignored.
/// * Links in the place of a container's folder or its record are refused as [`Error::Corrupt`].
///
/// ```
/// use reaper_spec::{ContainerId, Status};
/// use reaper_state::{FileStore, Record, StateRoot, StateStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let store = FileStore::new(StateRoot::new(folder.path().join("state")));
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
    root: StateRoot,
}

impl FileStore {
    /// The store below `root`. Nothing is read or made before it is needed.
    pub fn new(root: StateRoot) -> Self {
        Self { root }
    }

    /// Where the records are.
    pub fn root(&self) -> &StateRoot {
        &self.root
    }

    fn open_root(&self) -> Result<Option<Folder>, Error> {
        match Folder::open(self.root.path()) {
            Ok(root) => Ok(Some(root)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", self.root.path())(error)),
        }
    }

    /// The folder of a container; `None` if there is none.
    fn open<'a>(&self, root: &Folder, id: &'a ContainerId) -> Result<Option<Container<'a>>, Error> {
        let dir = self.root.container(id);
        match root.open_in(id.as_str()) {
            Ok(folder) => Ok(Some(Container::new(id, dir, folder))),
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT) => Ok(None),
                Some(Errno::NOTDIR | Errno::LOOP) => {
                    let kind = root
                        .kind_of(id.as_str())
                        .map_err(Error::io("look at", dir.path()))?;
                    if kind == Some(FileType::Symlink) {
                        return Err(corrupt(id, &dir, "its folder is a symbolic link"));
                    }
                    Ok(None)
                }
                _ => Err(Error::io("open", dir.path())(error)),
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
            let locked = container.lock()?;
            if locked.is_entry_of(root)? {
                return Ok(Some(locked));
            }
        }
    }

    /// Removes what a killed creation or deletion has left in the folder of a container without a record.
    /// What cannot be removed is left: it is no container.
    fn remove_interrupted(&self, root: &Folder, id: &ContainerId) -> io::Result<()> {
        let Ok(Some(container)) = self.open(root, id) else {
            return Ok(());
        };
        let Some(locked) = container.try_lock()? else {
            return Ok(());
        };
        if locked.was_interrupted()? && locked.is_entry_of(root).unwrap_or(false) {
            locked.remove_remains();
            root.remove(id.as_str())?;
        }
        Ok(())
    }

    fn make(&self, record: &Record) -> Result<Revision, Error> {
        let path = self.root.path();
        durable::create_dir_all(path).map_err(Error::io("make", path))?;
        let root = Folder::open(path).map_err(Error::io("open", path))?;
        let name = record.id.as_str();
        let folder = self.root.container(&record.id);
        loop {
            let made = root
                .make_in(name)
                .map_err(Error::io("make", folder.path()))?;
            let Some(locked) = self.lock(&root, &record.id)? else {
                let kind = root
                    .kind_of(name)
                    .map_err(Error::io("look at", folder.path()))?;
                if matches!(kind, None | Some(FileType::Directory)) {
                    continue;
                }
                return Err(Error::io("open", folder.path())(Errno::NOTDIR.into()));
            };
            // First of all a file in the folder, by which `list` knows it if this process is killed.
            let created = locked.create(record, made).and_then(|revision| {
                root.sync().map(|()| revision).map_err(|error| {
                    let _ = locked.delete();
                    Error::io("sync", path)(error)
                })
            });
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

    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
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
        locked.update(expected, record)
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
                    .map_err(Error::io("remove", &path));
            }
            locked => locked?.ok_or_else(missing)?,
        };
        let deleted = locked.delete();
        if !matches!(deleted, Ok(()) | Err(Error::NotFound { .. })) {
            return deleted;
        }
        match root.remove(id.as_str()) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!(container = %id, %error, "the folder of a deleted container stays");
            }
            _ => {}
        }
        deleted
    }

    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        let Some(root) = self.open_root()? else {
            return Ok(Vec::new());
        };
        let read = Error::io("list", self.root.path());
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
            let is_container = root.kind_of(state).map_or(true, |kind| kind.is_some());
            if !is_container {
                let _ = self.remove_interrupted(&root, id);
            }
            is_container
        });
        ids.sort_unstable();
        Ok(ids)
    }
}
