//! A store of one's own: the records of all containers in one file, for people to read.
//! `one-file-store FILE COMMAND…` runs a command as a container whose record is there while it runs,
//! as root.
//!
//! A store has two promises to keep: what it has acknowledged is on the disk, and of two callers that
//! change the same revision one gets a conflict. Here a file that is replaced whole gives the first, and
//! a lock over reading and replacing it the second. How a record is written is the crate's `format`.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    fs::{self, File},
    io,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use reaper_examples::foreground;
use reaper_exec::{Engine, HostExecutor, io::StandardBinder, monitor};
use reaper_overlay::HostFilesystem;
use reaper_spec::ContainerId;
use reaper_state::{
    Error, RECORD_VERSION, Record, Revision, StateRoot, StateStore, VersionedRecord, durable,
    format::{self, FormatError},
};
use serde_json::Value;

/// The records as they are written, by id.
type Records = BTreeMap<String, Value>;

/// A store that is one file.
struct OneFile(PathBuf);

impl OneFile {
    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = self.0.clone();
        move |source| Error::Io {
            operation,
            path,
            source,
        }
    }

    /// A reader needs no lock: it sees the file before a change or after it.
    fn read(&self) -> Result<Records, Error> {
        match fs::read(&self.0) {
            Ok(json) => {
                serde_json::from_slice(&json).map_err(|error| self.failed("read")(error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Records::new()),
            Err(error) => Err(self.failed("read")(error)),
        }
    }

    /// Reads, changes and replaces the file while no other caller does. Nothing is written where
    /// `change` fails.
    fn change<T>(&self, change: impl FnOnce(&mut Records) -> Result<T, Error>) -> Result<T, Error> {
        let folder = self.0.parent().unwrap_or(&self.0);
        durable::create_dir_all(folder).map_err(self.failed("make the folder of"))?;
        // The folder, not the file: that is another one after each change.
        let folder = File::open(folder).map_err(self.failed("open the folder of"))?;
        folder.lock().map_err(self.failed("lock"))?;
        let mut records = self.read()?;
        let done = change(&mut records)?;
        let json = serde_json::to_vec_pretty(&records);
        let json = json.map_err(|error| self.failed("write")(error.into()))?;
        durable::write_atomic(&self.0, &json).map_err(self.failed("write"))?;
        Ok(done)
    }

    fn decode(&self, id: &ContainerId, records: &Records) -> Result<VersionedRecord, Error> {
        let written = records.get(id.as_str());
        let written = written.ok_or_else(|| Error::NotFound { id: id.clone() })?;
        let (id, path) = (id.clone(), self.0.clone());
        format::decode(written.to_string().as_bytes()).map_err(|error| match error {
            FormatError::Newer { found } => Error::Newer {
                id,
                path,
                found,
                known: RECORD_VERSION,
            },
            other => Error::Corrupt {
                id,
                path,
                reason: other.to_string(),
            },
        })
    }

    fn put(&self, records: &mut Records, record: &Record) -> Result<Revision, Error> {
        let revision = Revision::unique().map_err(self.failed("make a revision for"))?;
        let refused = |reason: String| Error::Encode {
            id: record.id.clone(),
            reason,
        };
        let text = format::encode(record, &revision).map_err(|error| refused(error.to_string()))?;
        let json = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
        records.insert(record.id.to_string(), json);
        Ok(revision)
    }
}

impl StateStore for OneFile {
    fn create(&self, record: &Record) -> Result<Revision, Error> {
        self.change(|records| match records.contains_key(record.id.as_str()) {
            true => Err(Error::AlreadyExists {
                id: record.id.clone(),
            }),
            false => self.put(records, record),
        })
    }

    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
        self.decode(id, &self.read()?)
    }

    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        self.change(|records| {
            let current = self.decode(&record.id, records)?;
            if current.revision != *expected {
                return Err(Error::Conflict {
                    id: record.id.clone(),
                    actual: current.record.status,
                });
            }
            self.put(records, record)
        })
    }

    fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        self.change(|records| match records.remove(id.as_str()) {
            Some(_) => Ok(()),
            None => Err(Error::NotFound { id: id.clone() }),
        })
    }

    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        let invalid =
            |error| self.failed("read")(io::Error::new(io::ErrorKind::InvalidData, error));
        let ids = self.read()?.into_keys().map(ContainerId::new);
        ids.collect::<Result<_, _>>().map_err(invalid)
    }
}

fn main() -> ExitCode {
    monitor::run_if_monitor(|| monitor::MonitorConfig::new(HostFilesystem, StandardBinder::new()));
    run(std::env::args().skip(1)).unwrap_or_else(|error| {
        eprintln!("one-file-store: {error}");
        ExitCode::FAILURE
    })
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<ExitCode, Box<dyn StdError>> {
    let file = PathBuf::from(arguments.next().ok_or("no file is named")?);
    let folder = tempfile::tempdir()?;
    let root = StateRoot::new(folder.path());
    let store = Arc::new(OneFile(file));
    let engine = Engine::new(HostExecutor::new(root.clone()), store, root);
    foreground::run(&engine, foreground::container("in-a-file", arguments)?)
}

#[cfg(test)]
mod tests {
    use reaper_state::conformance::Subject;

    use super::*;

    reaper_state::state_store_conformance!(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not/yet/records.json");
        let (newer, neighbor) = (file.clone(), folder.path().join("other/records.json"));
        Subject::shared(move || OneFile(file.clone()))
            .with_neighbor(move || OneFile(neighbor.clone()))
            .with_newer(move |id| {
                let mut all: Value = serde_json::from_slice(&fs::read(&newer).unwrap()).unwrap();
                all[id.as_str()]["version"] = 99.into();
                fs::write(&newer, all.to_string()).unwrap();
            })
            .keeping(folder)
    });
}
