//! What is asked of this crate and what it answers: requests, scopes, errors, the traits.
//!
//! The lowest floor: plain data and contracts, known to all other modules and knowing none of them.

pub(crate) use crate::contract::error::Context;
pub use crate::contract::error::Error;
pub use crate::contract::rootless::RootlessError;
pub use crate::contract::scope::Scope;
pub use crate::contract::user::user_directory;
pub use {
    crate::contract::isolation::FilesystemIsolation, crate::contract::isolation::GarbageCollection,
    crate::contract::isolation::View,
};
#[cfg(feature = "mock")]
pub use {
    crate::contract::isolation::MockFilesystemIsolation, crate::contract::isolation::MockView,
};
pub use {crate::contract::request::RootfsMount, crate::contract::request::ViewRequest};

pub(crate) mod error;
pub(crate) mod host_paths;
pub(crate) mod isolation;
pub(crate) mod request;
pub(crate) mod rootless;
pub(crate) mod scope;
pub(crate) mod user;
