//! The process: its start, its loop, and what it does in place of a monitor that was killed.

mod cleanup;
mod event_loop;
pub(crate) mod start;
