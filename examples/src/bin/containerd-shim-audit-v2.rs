//! A shim of one's own: Reaper's, with a store that writes down what happens to containers.
//!
//! A store is five methods, so one that adds something to another is a page. Put the program
//! beside `containerd-shim-reaper-v2` and name the runtime `io.containerd.audit.v2`. Of containerd's
//! environment a shim keeps what begins with `REAPER_`, so that is where settings of its own go.

use std::{env, fs::File, io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use reaper_exec::{HostExecutor, io::StandardBinder, monitor};
use reaper_overlay::Configured;
use reaper_shim::{Runtime, Shim};
use reaper_spec::ContainerId;
use reaper_state::{Error, FileStore, Record, Revision, StateStore, VersionedRecord};

/// Writes each change down before it is made: what cannot be audited does not happen.
struct Audited<S> {
    store: S,
    log: PathBuf,
}

impl<S> Audited<S> {
    /// Appends a line, in one write: many shims share the file.
    fn note(&self, id: &ContainerId, what: impl std::fmt::Display) -> Result<(), Error> {
        let open = File::options().create(true).append(true).open(&self.log);
        open.and_then(|mut log| log.write_all(format!("{id} {what}\n").as_bytes()))
            .map_err(|source| Error::Io {
                operation: "append to",
                path: self.log.clone(),
                source,
            })
    }
}

impl<S: StateStore> StateStore for Audited<S> {
    fn create(&self, record: &Record) -> Result<Revision, Error> {
        self.note(&record.id, record.status)?;
        self.store.create(record)
    }
    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
        self.store.get(id)
    }
    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        self.note(&record.id, record.status)?;
        self.store.update(expected, record)
    }
    fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        self.note(id, "deleted")?;
        self.store.delete(id)
    }
    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        self.store.list()
    }
}

fn main() -> ExitCode {
    monitor::run_if_monitor(|| {
        monitor::MonitorConfig::new(Configured::default(), StandardBinder::new())
    });
    Shim::new("io.containerd.audit.v2", |context| {
        let log =
            env::var_os("REAPER_AUDIT_LOG").unwrap_or_else(|| "/var/log/containers.audit".into());
        let store = Audited {
            store: FileStore::new(context.root.clone()),
            log: log.into(),
        };
        let executor = HostExecutor::new(context.root.clone())
            .containerd_namespace(&context.namespace)
            .subreaper(true);
        Ok(Runtime::new(executor, Arc::new(store)))
    })
    .run()
}
