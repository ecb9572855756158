//! Kernel interfaces: what is done with paths, descriptors and error numbers.
//!
//! Nothing here knows scopes, layers or volumes.

pub(crate) mod fd_passing;
pub(crate) mod file_attributes;
pub(crate) mod files;
pub(crate) mod flock;
pub(crate) mod handle;
pub(crate) mod helper;
pub(crate) mod in_use;
pub(crate) mod mount_point;
pub mod mountinfo;
pub(crate) mod namespace;
pub(crate) mod project;
pub(crate) mod resolve;
pub(crate) mod syscall;
pub(crate) mod walk;
