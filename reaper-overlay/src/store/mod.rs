//! The files below the base directory, their formats and locks.

pub(crate) mod paths;
