//! Running hooks (runtime-spec, config.md, "POSIX-platform Hooks").
//!
//! Hooks are run one after another by a process that waits for nothing else: one that a monitor has
//! forked for it, the container's own first process, or one that cleans up. Each is given OCI's state
//! on its standard input and nothing of its caller: no environment, no descriptors, no session, no
//! blocked signals. What it writes is read and thrown away but for its end, which is part of the error
//! of one that fails.

mod bundle;
mod run;
mod state;

pub(crate) use self::{
    bundle::{HookBundle, HookFolder},
    run::{HookFailure, Surroundings, run, run_all},
    state::state,
};

use std::time::Duration;

use reaper_spec::{Hook, HookKind, Hooks};

/// How long a hook may take that names no time, as long as creating a container may.
const LIMIT: Duration = Duration::from_secs(60);

/// The same when the container is deleted: its end must not be held up, and a failure is a warning.
const POSTSTOP_LIMIT: Duration = Duration::from_secs(10);

/// How long a hook may take.
fn limit(kind: HookKind, hook: &Hook) -> Duration {
    match (hook.timeout, kind) {
        (Some(seconds), _) => Duration::from_secs(seconds.get().into()),
        (None, HookKind::Poststop) => POSTSTOP_LIMIT,
        (None, _) => LIMIT,
    }
}

/// How long all hooks of these kinds may take.
pub(crate) fn total_limit(hooks: &Hooks, kinds: &[HookKind]) -> Duration {
    let of = |&kind: &HookKind| hooks.of(kind).iter().map(move |hook| limit(kind, hook));
    kinds.iter().flat_map(of).sum()
}
