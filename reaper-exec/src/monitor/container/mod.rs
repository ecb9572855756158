//! The container, as data: what all operations work on.

pub(crate) mod monitor;
