//! Containers that an OCI runtime makes: the monitor drives its command line.
//!
//! A runtime's `create` and `exec` leave a process and exit. The monitor is a subreaper, so that
//! process becomes its child, like one that it had forked itself: the monitor waits for it, its
//! streams are the binder's, its exit is recorded. Each command is a job: a child whose exit the
//! monitor handles like any other, so a slow runtime delays only the client that sent the request.
//!
//! When init has exited, `delete --force` kills the remaining processes and removes the runtime's
//! state. The exit is published after that. The cleanup after a killed monitor does the same.

pub(crate) mod cleanup;
pub(crate) mod command;
mod console;
pub(crate) mod directory;
pub(crate) mod error_message;
pub(crate) mod job;
pub(crate) mod process_json;
pub(crate) mod rootfs;
pub(crate) mod runtime;
