//! One container's own mounts.
//!
//! A volume is parsed once ([`request`]), opened once ([`open`]), given its mount point by the
//! isolation, and mounted ([`mount`]). Mount points and their use counts are the scope's.

mod copy_up;
mod device;
pub(crate) mod filter;
pub(crate) mod mount;
pub(crate) mod nested;
pub(crate) mod open;
pub(crate) mod options;
mod refused;
pub(crate) mod request;
