//! The container, as data: what all operations work on.
//!
//! The types are below the operations, each of which is an `impl` block for one topic. So the
//! operations need not know one another, and [`Backend`](backend::Backend) can name them all.

pub(crate) mod backend;
pub(crate) mod hooks;
pub(crate) mod killed;
pub(crate) mod monitor;
pub(crate) mod new_container;
pub(crate) mod oom;
