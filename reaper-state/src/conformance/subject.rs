//! What is checked.

use std::{any::Any, fmt, sync::Arc};

use crate::StateStore;

/// A new, empty store to be checked.
pub struct Subject {
    pub(super) store: Arc<dyn StateStore>,
    open: Option<Box<dyn Fn() -> Arc<dyn StateStore> + Sync>>,
    // Dropped last: a temporary folder, say.
    _kept: Option<Box<dyn Any>>,
}

impl Subject {
    /// A store that is one value in one process, like the one in memory.
    pub fn new(store: impl StateStore + 'static) -> Self {
        Self {
            store: Arc::new(store),
            open: None,
            _kept: None,
        }
    }

    /// A store of which every call of `open` makes a handle of its own, to the same records, as
    /// several processes would have.
    pub fn shared<S: StateStore + 'static>(open: impl Fn() -> S + Sync + 'static) -> Self {
        let store = Arc::new(open());
        let open = move || Arc::new(open()) as Arc<dyn StateStore>;
        Self {
            store,
            open: Some(Box::new(open)),
            _kept: None,
        }
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

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("shared", &self.open.is_some())
            .finish_non_exhaustive()
    }
}
