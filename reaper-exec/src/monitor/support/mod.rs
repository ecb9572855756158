//! Parts that know nothing of a container's processes.

pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod container_files;
pub(crate) mod deferred_streams;
pub(crate) mod descriptors;
pub(crate) mod hook_runner;
pub(crate) mod kill_deadline;
pub(crate) mod log;
pub(crate) mod node_cleanup;
pub(crate) mod oom_score;
pub(crate) mod placeholder;
pub(crate) mod request;
pub(crate) mod signal;
pub(crate) mod states;
pub(crate) mod wait;
