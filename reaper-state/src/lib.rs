//! Durable state of containers.
//!
//! It decides how a record outlives crashes and writers at the same time. It must not know what a
//! container is: it looks at no process, no cgroup and no mount, and takes a status for a word.
//!
//! An engine that is killed, upgraded or rebooted has to know afterwards which containers there
//! are and how they ended, and it is seldom alone: a shim, a command and a third program change
//! the same container at the same time. [`StateStore`] is a small contract for that:
//! compare-and-swap on a revision, and durability on `Ok`. [`Record`] is what it keeps.
//!
//! ```
//! use reaper_spec::{ContainerId, Status};
//! use reaper_state::{Error, MemoryStore, Record, StateStore};
//!
//! /// Marks a container as stopped, whatever else happens to it meanwhile.
//! fn stop(store: &dyn StateStore, id: &ContainerId) -> Result<(), Error> {
//!     loop {
//!         let mut stored = store.get(id)?;
//!         stored.record.status = Status::Stopped;
//!         match store.update(&stored.revision, &stored.record) {
//!             Err(Error::Conflict { .. }) => {}
//!             done => return done.map(drop),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let id = ContainerId::new("web-1")?;
//! store.create(&Record::new(id.clone(), "/run/bundles/web-1".into()))?;
//! stop(&store, &id)?;
//! assert_eq!(store.get(&id)?.record.status, Status::Stopped);
//! # Ok(())
//! # }
//! ```
//!
//! [`FileStore`] keeps records in files, [`MemoryStore`] in memory, and `SqliteStore` (feature
//! `sqlite`) in a database; [`open()`] makes the one that a configuration names, and [`migrate()`]
//! moves records. Who writes another store finds the format in
//! [`format`](mod@format) and the contract as a suite of tests in `conformance` (feature
//! `conformance`). For tests of consumers there are `FakeStore` (feature `fake`) and
//! `MockStateStore` (feature `mock`).
//!
//! [A store of your own](https://github.com/reaper-project/reaper/blob/main/docs/your-own-store.md)
//! is a page with an example.
//!
//! [`StateRoot`] and [`ContainerDir`] say where things are below a state root, and [`durable`]
//! writes a file so that a crash leaves the old one or the new one. [`lock_exclusive`] waits for a lock,
//! and not for ever.
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod durable;
#[cfg(feature = "fake")]
mod fake;
mod file;
mod folder;
pub mod format;
mod forward;
mod layout;
mod lock;
mod memory;
mod migrate;
mod open;
mod record;
mod revision;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

#[cfg(feature = "fake")]
pub use fake::{Call, FakeStore, Hold, ScriptedResult};
pub use file::FileStore;
pub use layout::{ContainerDir, StateRoot};
pub use lock::lock_exclusive;
pub use memory::MemoryStore;
pub use migrate::{Migration, migrate};
pub use open::open;
pub use record::{RECORD_VERSION, Record};
pub use revision::{ParseRevisionError, Revision};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
#[cfg(feature = "mock")]
pub use store::MockStateStore;
pub use store::{Error, StateStore, VersionedRecord};

#[cfg(all(doctest, feature = "conformance"))]
#[doc = include_str!("../README.md")]
struct Readme;
