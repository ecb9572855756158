//! One process of the container.

pub(crate) mod spawn;
pub(crate) mod state;
