//! What is done with the container: one topic a file, each an `impl Monitor`.

mod agent;
pub(crate) mod create;
mod disconnect;
mod exit;
mod freeze;
mod hooks;
mod host_backend;
mod oom;
mod readiness;
mod requests;
mod runtime_backend;
mod runtime_calls;
mod runtime_create;
mod runtime_finished;
mod stats;
mod stop;
