//! One container's own mounts.

pub(crate) mod filter;
pub(crate) mod nested;
pub(crate) mod open;
pub(crate) mod open_as_user;
pub(crate) mod opened;
pub(crate) mod options;
pub(crate) mod request;
