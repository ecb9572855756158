//! Hooks that are run, and what follows.

use reaper_spec::{Exit, ProcessIdentity};

use crate::{
    monitor::support::{connection::ReplyTo, hook_runner::HookRunner},
    protocol::Failure,
};

/// Hooks that are run.
#[derive(Debug)]
pub(crate) struct HookRun {
    pub(crate) runner: HookRunner,
    pub(crate) after: AfterHooks,
}

/// What follows once hooks were run.
#[derive(Debug, Clone)]
pub(crate) enum AfterHooks {
    /// The first process goes on with the creation.
    Create,
    /// The client of a start is answered.
    Start(ReplyTo, ProcessIdentity),
    /// The container's files are removed, for the client with this number.
    Delete(u64, Exit),
    /// The client of a creation gets the reason why it failed.
    Abort(ReplyTo, Failure),
}
