//! Records in a SQLite database.
//!
//! Writers queue by flock(2) on a file beside the database and then take an immediate transaction,
//! so the order of writers is that of the lock, and none of them sleeps and retries as SQLite's own
//! busy handler does. Readers take no lock: WAL gives each a snapshot.

mod database;
mod error;
mod schema;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use reaper_spec::ContainerId;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use self::{database::Database, error::failed};
use crate::{
    Error, RECORD_VERSION, Record, Revision, StateStore, VersionedRecord,
    format::{self, FormatError},
};

/// Records in a SQLite database: one file however many containers there are, and queries with
/// any SQLite tool.
///
/// Any number of processes may use one database on a local filesystem. It is kept in WAL mode
/// with `synchronous=FULL`, so `Ok` means that the record is on the disk. Changes queue by an flock
/// on a file beside it, `PATH-lock`. Another program that writes to the database is waited for at
/// most ten seconds, then it is [`Error::Io`].
///
/// * The database, with the folders above it, is made by the first [`create`](StateStore::create)
///   and opened by the first call of any kind. Reading makes no file. Its mode is 0600.
/// * A database that was removed or replaced under an open store is noticed by the next call.
/// * An older schema is migrated when it is opened; a newer one is [`Error::NewerStore`]; a
///   database of another program is refused.
/// * The table `record` has the columns `id`, `revision`, and `document`, the JSON of
///   [`format`](mod@crate::format).
/// * After each change that can be read the times of `PATH-lock` change, for who watches the folder
///   by inotify.
/// * A value must not be used on both sides of a `fork`.
///
/// ```
/// use reaper_spec::ContainerId;
/// use reaper_state::{Record, SqliteStore, StateStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let store = SqliteStore::new(folder.path().join("state.db"));
/// let id = ContainerId::new("web-1")?;
/// store.create(&Record::new(id.clone(), "/run/bundles/web-1".into()))?;
/// assert_eq!(store.list()?, [id]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    open: Mutex<Option<Database>>,
}

impl SqliteStore {
    /// The store in the database at `path`. Nothing is read or made before it is needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            open: Mutex::new(None),
        }
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Acts on the database; `None` if there is none and none is to be made.
    fn with<T>(
        &self,
        make: bool,
        act: impl FnOnce(&mut Database) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        // SQLite rolls back what a panic has cut short.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open
            .as_ref()
            .is_some_and(|database| database.is_at(&self.path))
        {
            // Closed before another is opened at the same path: SQLite finds the files that
            // belong to a database by its name.
            *open = None;
            *open = Database::open(&self.path, make)?;
        }
        open.as_mut().map(act).transpose()
    }

    fn change<T>(
        &self,
        make: bool,
        operation: &'static str,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let failed = |error| failed(operation, &self.path, error);
        self.with(make, |database| {
            let (connection, _turn) = database.in_turn()?;
            let immediate = TransactionBehavior::Immediate;
            let transaction = connection
                .transaction_with_behavior(immediate)
                .map_err(failed)?;
            let result = act(&transaction)?;
            transaction.commit().map_err(failed)?;
            Ok(result)
        })
    }

    fn read(
        &self,
        connection: &Connection,
        id: &ContainerId,
    ) -> Result<Option<VersionedRecord>, Error> {
        let document = connection
            .query_row(
                "SELECT document FROM record WHERE id = ?1",
                [id.as_str()],
                |row| Ok(row.get_ref(0)?.as_bytes()?.to_vec()),
            )
            .optional()
            .map_err(|error| failed("read", &self.path, error))?;
        let Some(document) = document else {
            return Ok(None);
        };
        let corrupt = |reason| Error::Corrupt {
            id: id.clone(),
            path: self.path.clone(),
            reason,
        };
        match format::decode(&document) {
            Ok(stored) if stored.record.id == *id => Ok(Some(stored)),
            Ok(stored) => Err(corrupt(format!("it is the record of {}", stored.record.id))),
            Err(FormatError::Newer { found }) => Err(Error::Newer {
                id: id.clone(),
                path: self.path.clone(),
                found,
                known: RECORD_VERSION,
            }),
            Err(error) => Err(corrupt(error.to_string())),
        }
    }

    /// Runs `statement` with the parameters id, revision and document; the revision is new.
    fn write(
        &self,
        transaction: &Transaction<'_>,
        statement: &str,
        record: &Record,
    ) -> Result<(Revision, usize), Error> {
        let revision = Revision::unique().map_err(Error::io("write", &self.path))?;
        let document = format::encode(record, &revision).map_err(|error| Error::Encode {
            id: record.id.clone(),
            reason: error.to_string(),
        })?;
        let parameters = (record.id.as_str(), revision.to_string(), document);
        let changed = transaction
            .execute(statement, parameters)
            .map_err(|error| failed("write", &self.path, error))?;
        Ok((revision, changed))
    }
}

impl StateStore for SqliteStore {
    fn create(&self, record: &Record) -> Result<Revision, Error> {
        let created = self.change(true, "write", |transaction| {
            let statement = "INSERT INTO record (id, revision, document) VALUES (?1, ?2, ?3) \
                             ON CONFLICT (id) DO NOTHING";
            match self.write(transaction, statement, record)? {
                (_, 0) => Err(Error::AlreadyExists {
                    id: record.id.clone(),
                }),
                (revision, _) => Ok(revision),
            }
        })?;
        created.ok_or_else(|| Error::NotFound {
            id: record.id.clone(),
        })
    }

    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
        let stored = self.with(false, |database| self.read(database.connection(), id))?;
        stored
            .flatten()
            .ok_or_else(|| Error::NotFound { id: id.clone() })
    }

    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        let missing = || Error::NotFound {
            id: record.id.clone(),
        };
        let updated = self.change(false, "write", |transaction| {
            let current = self.read(transaction, &record.id)?.ok_or_else(missing)?;
            if current.revision != *expected {
                let actual = current.record.status;
                return Err(Error::Conflict {
                    id: record.id.clone(),
                    actual,
                });
            }
            let statement = "UPDATE record SET revision = ?2, document = ?3 WHERE id = ?1";
            let (revision, _) = self.write(transaction, statement, record)?;
            Ok(revision)
        })?;
        updated.ok_or_else(missing)
    }

    fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        let deleted = self.change(false, "delete from", |transaction| {
            transaction
                .execute("DELETE FROM record WHERE id = ?1", [id.as_str()])
                .map_err(|error| failed("delete from", &self.path, error))
        })?;
        match deleted {
            None | Some(0) => Err(Error::NotFound { id: id.clone() }),
            Some(_) => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        let listed = self.with(false, |database| {
            let list = || -> rusqlite::Result<Vec<String>> {
                let mut statement = database.connection().prepare("SELECT id FROM record")?;
                let ids = statement.query_map([], |row| row.get(0))?;
                ids.collect()
            };
            list().map_err(|error| failed("list", &self.path, error))
        })?;
        let names = listed.unwrap_or_default();
        let mut ids: Vec<_> = names
            .into_iter()
            .filter_map(|name| ContainerId::new(name).ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }
}
