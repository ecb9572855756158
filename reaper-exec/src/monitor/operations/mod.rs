//! What is done with the container: one topic a file, each an `impl Monitor`.

pub(crate) mod create;
mod exit;
mod freeze;
mod readiness;
mod requests;
mod runtime_calls;
mod runtime_create;
mod runtime_finished;
mod signal;
mod stats;
