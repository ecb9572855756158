//! Durable state of containers.
//!
//! [`StateStore`] is a small contract, compare-and-swap on a revision and durability on `Ok`,
//! and [`Record`] is what it keeps. [`RootDir`] and [`ContainerDir`] say where things are below a
//! state root, and [`durable`] writes a file so that a crash leaves the old one or the new one.
#![forbid(unsafe_code)]

pub mod durable;
mod file;
mod folder;
pub mod format;
mod forward;
mod layout;
mod memory;
mod record;
mod revision;
mod store;

pub use file::FileStore;
pub use layout::{ContainerDir, RootDir};
pub use memory::MemoryStore;
pub use record::{RECORD_VERSION, Record};
pub use revision::{ParseRevisionError, Revision};
pub use store::{Error, StateStore, Stored};
