//! What an engine holds.

use std::sync::Arc;

use reaper_state::{StateRoot, StateStore};

use crate::executor::Executor;

/// Containers of one state root: an [`Executor`] that runs them and a [`StateStore`] that
/// remembers them, kept in step.
///
/// Every operation commits to the store before it returns, and an exit that no program has waited
/// for is committed by the next [`state`](Self::state). Any number of engines, in any number of
/// processes, may work on one root.
#[derive(Debug)]
pub struct Engine<E, S: ?Sized> {
    pub(super) executor: E,
    pub(super) store: Arc<S>,
    pub(super) root: StateRoot,
    pub(super) blocking: bool,
}

impl<E: Executor, S: StateStore + ?Sized + 'static> Engine<E, S> {
    /// Containers below `root`, run by `executor`, remembered by `store`.
    pub fn new(executor: E, store: Arc<S>, root: StateRoot) -> Self {
        Self {
            executor,
            store,
            root,
            blocking: false,
        }
    }

    /// Calls the store on Tokio's blocking threads, for programs whose own thread must never
    /// wait for a disk. By default it is called in place.
    #[must_use]
    pub fn blocking_store(mut self, blocking: bool) -> Self {
        self.blocking = blocking;
        self
    }

    /// The executor, for all that concerns no record: exec'd processes, terminals, figures.
    pub fn executor(&self) -> &E {
        &self.executor
    }

    /// The store.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// The state root.
    pub fn root(&self) -> &StateRoot {
        &self.root
    }
}
