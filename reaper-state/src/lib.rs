//! Durable state of containers.
//!
//! [`StateStore`] is a small contract, compare-and-swap on a revision and durability on `Ok`,
//! and [`Record`] is what it keeps. [`RootDir`] and [`ContainerDir`] say where things are below a
//! state root, and [`durable`] writes a file so that a crash leaves the old one or the new one.
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
mod memory;
mod migrate;
mod record;
mod revision;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

#[cfg(feature = "fake")]
pub use fake::{Call, FakeStore, Gate, Reaction};
pub use file::FileStore;
pub use layout::{ContainerDir, RootDir};
pub use memory::MemoryStore;
pub use migrate::{Migration, migrate};
pub use record::{RECORD_VERSION, Record};
pub use revision::{ParseRevisionError, Revision};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
#[cfg(feature = "mock")]
pub use store::MockStateStore;
pub use store::{Error, StateStore, Stored};
