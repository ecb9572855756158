//! What is asked of this crate and what it answers: requests, scopes, errors, the traits.
//!
//! The lowest floor: plain data and contracts, known to all other modules and knowing none of them.

mod error;
pub(crate) mod host_paths;
mod isolation;
mod obstacle;
pub(crate) mod path_hash;
mod request;
mod scope;
pub(crate) mod user;

pub(crate) use error::Context;
pub use error::Error;
pub use isolation::{FilesystemIsolation, Housekeeping, View};
#[cfg(feature = "mock")]
pub use isolation::{MockFilesystemIsolation, MockView};
pub use obstacle::Obstacle;
pub use request::{RootfsMount, ViewRequest};
pub use scope::Scope;
pub use user::user_directory;
