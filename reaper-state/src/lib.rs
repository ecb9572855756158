//! Durable state of containers.
//!
//! [`StateStore`] is a small contract, compare-and-swap on a revision and durability on `Ok`,
//! and [`Record`] is what it keeps. [`RootDir`] and [`ContainerDir`] say where things are below a
//! state root, and [`durable`] writes a file so that a crash leaves the old one or the new one.
#![forbid(unsafe_code)]

pub mod durable;
mod layout;
mod record;
mod store;

pub use layout::{ContainerDir, RootDir};
pub use record::{RECORD_VERSION, Record};
pub use store::{Error, Revision, StateStore, Stored};
