//! Views of the filesystem for processes of the host.
//!
//! [`FilesystemIsolation`] is the contract between an engine that forks processes and something
//! that decides what those processes see. [`HostRoot`] shows the host as it is.
#![deny(unsafe_code)]

mod host_root;
mod isolation;

pub use host_root::HostRoot;
pub use isolation::{Error, FilesystemIsolation, View, ViewRequest};
