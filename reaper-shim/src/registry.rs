//! The containers of this shim.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use reaper_exec::Target;
use reaper_spec::ContainerId;

use crate::{Error, Result, container::Container};

/// The containers of this shim. Once it is closed, it stays empty.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// `None` while it is being made.
    slots: HashMap<ContainerId, Option<Arc<Container>>>,
}

impl Registry {
    /// The container of this id.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Container>> {
        let id = ContainerId::new(id)?;
        match self.state().slots.get(&id) {
            Some(Some(container)) => Ok(Arc::clone(container)),
            _ => Err(reaper_exec::Error::NotFound(Target::Init(id)).into()),
        }
    }

    /// Takes an id for a container that is being made.
    pub(crate) fn reserve(self: &Arc<Self>, id: ContainerId) -> Result<Reservation> {
        let mut state = self.state();
        if state.closed {
            return Err(Error::ShuttingDown(id));
        }
        if state.slots.contains_key(&id) {
            return Err(reaper_exec::Error::AlreadyExists(Target::Init(id)).into());
        }
        state.slots.insert(id.clone(), None);
        Ok(Reservation {
            registry: Arc::clone(self),
            id,
            filled: false,
        })
    }

    pub(crate) fn remove(&self, id: &ContainerId) {
        self.state().slots.remove(id);
    }

    /// Those that are made.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.state()
            .slots
            .values()
            .flatten()
            .map(Arc::clone)
            .collect()
    }

    /// Closes it.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// Closes it if it is empty, and says whether it is closed.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut state = self.state();
        state.closed |= state.slots.is_empty();
        state.closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An id that is taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Reservation {
    registry: Arc<Registry>,
    id: ContainerId,
    filled: bool,
}

impl Reservation {
    /// The container was made.
    pub(crate) fn fill(mut self, container: Arc<Container>) {
        self.registry
            .state()
            .slots
            .insert(self.id.clone(), Some(container));
        self.filled = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.filled {
            self.registry.remove(&self.id);
        }
    }
}
