//! Containers that an OCI runtime makes: the monitor drives its command line.
//!
//! A runtime's `create` and `exec` leave a process behind and end. The monitor is a subreaper, so
//! that process becomes its child, as one that it had forked itself: it is waited for, its streams
//! are the binder's, its end is recorded. Each command is a job, a child whose end the monitor sees
//! as any other, and so a slow runtime keeps nobody waiting who did not ask for it.
//!
//! When init has ended, `delete --force` ends what is left and removes what the runtime keeps,
//! and only then the end is announced. Whoever buries a killed monitor does the same.

pub(crate) mod cleanup;
pub(crate) mod command;
mod console;
pub(crate) mod error_message;
pub(crate) mod job;
pub(crate) mod process_json;
pub(crate) mod rootfs;
pub(crate) mod runtime;
