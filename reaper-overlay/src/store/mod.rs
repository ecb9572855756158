//! The files below the base directory, their formats and locks.

pub(crate) mod base;
pub(crate) mod home;
pub(crate) mod host_snapshot;
pub(crate) mod layer_table;
pub(crate) mod members;
pub(crate) mod mount_points;
pub(crate) mod paths;
pub(crate) mod project;
pub(crate) mod record;
pub(crate) mod scope_limit;
pub(crate) mod trash;

pub use host_snapshot::Unmounted;
