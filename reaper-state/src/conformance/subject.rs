//! What is checked.

use std::{any::Any, fmt, sync::Arc};

use reaper_spec::ContainerId;

use crate::StateStore;

type Open = Box<dyn Fn() -> Arc<dyn StateStore> + Sync>;
type WriteNewer = Box<dyn Fn(&ContainerId) + Sync>;

/// A new, empty store to be checked.
pub struct Subject {
    pub(super) store: Arc<dyn StateStore>,
    open: Option<Open>,
    pub(super) write_newer: Option<WriteNewer>,
    pub(super) neighbor: Option<Open>,
    // Dropped last: a temporary folder, say.
    _kept: Option<Box<dyn Any>>,
}

impl Subject {
    /// A store that is one value in one process, like the one in memory.
    pub fn new(store: impl StateStore + 'static) -> Self {
        Self {
            store: Arc::new(store),
            open: None,
            write_newer: None,
            neighbor: None,
            _kept: None,
        }
    }

    /// A store of which every call of `open` makes a handle of its own, to the same records, as
    /// several processes would have.
    pub fn shared<S: StateStore + 'static>(open: impl Fn() -> S + Sync + 'static) -> Self {
        let first = open();
        Self {
            open: Some(erase(open)),
            ..Self::new(first)
        }
    }

    /// `write` replaces a container's stored record by one of a format that only a later version
    /// of the store reads. Without it, the rule about such records checks nothing: a store in
    /// memory has none.
    #[must_use]
    pub fn with_newer(mut self, write: impl Fn(&ContainerId) + Sync + 'static) -> Self {
        self.write_newer = Some(Box::new(write));
        self
    }

    /// `open` makes handles of another store of the same kind beside this one, such as one below
    /// another root. Without it, the rule that stores are separate checks nothing.
    #[must_use]
    pub fn with_neighbor<S: StateStore + 'static>(
        mut self,
        open: impl Fn() -> S + Sync + 'static,
    ) -> Self {
        self.neighbor = Some(erase(open));
        self
    }

    /// Keeps `value`, what the records are in, until the check is over.
    #[must_use]
    pub fn keeping(mut self, value: impl Any) -> Self {
        self._kept = Some(Box::new(value));
        self
    }

    /// A handle of its own where the store has such, else the store.
    pub(super) fn handle(&self) -> Arc<dyn StateStore> {
        self.open
            .as_ref()
            .map_or_else(|| Arc::clone(&self.store), |open| open())
    }
}

fn erase<S: StateStore + 'static>(open: impl Fn() -> S + Sync + 'static) -> Open {
    Box::new(move || Arc::new(open()))
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("shared", &self.open.is_some())
            .finish_non_exhaustive()
    }
}
