//! What the monitor calls.

pub(crate) mod place_volumes;
