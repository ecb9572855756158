//! The database's schema, and how an older one becomes today's.

use std::{io, path::Path};

use rusqlite::{Connection, TransactionBehavior};

use super::error::failed;
use crate::Error;

/// `reap`, in the database's header: it is ours.
const APPLICATION_ID: i64 = 0x7265_6170;

/// The schema's history. The version of a database is the number of these that it has had, so
/// one that was released is never changed: another is added.
pub(super) const MIGRATIONS: &[&str] = &["CREATE TABLE record (
        id TEXT PRIMARY KEY NOT NULL,
        revision TEXT NOT NULL,
        document TEXT NOT NULL
    ) STRICT, WITHOUT ROWID"];

/// Gives the database the newest schema, in one step, and its modes.
pub(super) fn bring_up_to_date(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), Error> {
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let found = version(connection, path)?;
    if found > known {
        return Err(Error::NewerStore {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let modes = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
    connection
        .execute_batch(modes)
        .map_err(|error| failed("open", path, error))?;
    if found == known {
        return Ok(());
    }
    let migrate = || -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in migrations.iter().skip(found as usize) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", known)?;
        transaction.commit()
    };
    let mut migrate = migrate;
    migrate().map_err(|error| failed("migrate", path, error))
}

/// The version of the schema: 0 for an empty database.
fn version(connection: &Connection, path: &Path) -> Result<u32, Error> {
    let read = |query: &str| -> Result<i64, Error> {
        connection
            .query_row(query, [], |row| row.get(0))
            .map_err(|error| failed("open", path, error))
    };
    let version = read("PRAGMA user_version")?;
    let is_ours = read("PRAGMA application_id")? == APPLICATION_ID;
    let is_empty = version == 0 && read("SELECT count(*) FROM sqlite_schema")? == 0;
    match u32::try_from(version) {
        Ok(version) if is_ours || is_empty => Ok(version),
        _ => Err(Error::Io {
            operation: "open",
            path: path.to_owned(),
            source: io::Error::new(
                io::ErrorKind::InvalidData,
                "it is the database of another program",
            ),
        }),
    }
}

#[cfg(test)]
mod tests;
