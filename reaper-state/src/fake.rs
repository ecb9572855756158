//! A store that does what a test's script says.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use reaper_spec::ContainerId;

use crate::{Error, MemoryStore, Record, Revision, StateStore, VersionedRecord};

/// A call of a [`StateStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`StateStore::create`].
    Create,
    /// [`StateStore::get`].
    Get,
    /// [`StateStore::update`].
    Update,
    /// [`StateStore::delete`].
    Delete,
    /// [`StateStore::list`].
    List,
}

/// What a [`FakeStore`] does instead of answering at once.
#[derive(Debug)]
#[non_exhaustive]
pub enum ScriptedResult {
    /// Fails, and changes nothing.
    Fail(Error),
    /// Does what was asked and answers with an error all the same, as where an acknowledgement
    /// is lost.
    FailAfterwards(Error),
    /// Waits at the hold, then does what was asked.
    Wait(Hold),
    /// Does what was asked, then waits at the hold with the answer.
    WaitAfterwards(Hold),
}

/// Where a call waits until the test lets it go on.
///
/// Clones are the same hold.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<(Mutex<HoldState>, Condvar)>);

#[derive(Debug, Default)]
struct HoldState {
    reached: bool,
    open: bool,
}

impl Hold {
    /// A hold that keeps each call until it is opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until a call has come to the hold.
    pub fn wait_until_reached(&self) {
        let (state, changed) = &*self.0;
        drop(changed.wait_while(guard(state), |state| !state.reached));
    }

    /// Lets the call, and all that come later, go on.
    pub fn open(&self) {
        let (state, changed) = &*self.0;
        guard(state).open = true;
        changed.notify_all();
    }

    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = guard(state);
        state.reached = true;
        changed.notify_all();
        drop(changed.wait_while(state, |state| !state.open));
    }
}

/// A store for tests: it counts its calls, and fails or waits where its script says.
///
/// ```
/// use reaper_spec::ContainerId;
/// use reaper_state::{Call, Error, FakeStore, ScriptedResult, Record, StateStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id = ContainerId::new("web")?;
/// let store = FakeStore::new();
/// store.script(Call::Get, 2, ScriptedResult::Fail(Error::NotFound { id: id.clone() }));
///
/// store.create(&Record::new(id.clone(), "/bundle".into()))?;
/// assert!(store.get(&id).is_ok());
/// assert!(store.get(&id).is_err(), "the second one fails");
/// assert!(store.get(&id).is_ok());
/// assert_eq!(store.calls(Call::Get), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct FakeStore<S = MemoryStore> {
    inner: S,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    calls: HashMap<Call, usize>,
    results: HashMap<(Call, usize), ScriptedResult>,
}

impl FakeStore {
    /// An empty store in memory, without a script.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S: StateStore> FakeStore<S> {
    /// A script over another store.
    pub fn over(inner: S) -> Self {
        Self {
            inner,
            script: Mutex::default(),
        }
    }

    /// Has the `number`th `call`, counted from 1 and from the store's beginning, meet `result`.
    pub fn script(&self, call: Call, number: usize, result: ScriptedResult) {
        guard(&self.script).results.insert((call, number), result);
    }

    /// How often `call` was made. A call that waits counts.
    pub fn calls(&self, call: Call) -> usize {
        guard(&self.script).calls.get(&call).copied().unwrap_or(0)
    }

    fn react<T>(&self, call: Call, act: impl FnOnce(&S) -> Result<T, Error>) -> Result<T, Error> {
        let result = {
            let mut script = guard(&self.script);
            let number = script.calls.entry(call).or_insert(0);
            *number += 1;
            let key = (call, *number);
            script.results.remove(&key)
        };
        match result {
            None => act(&self.inner),
            Some(ScriptedResult::Fail(error)) => Err(error),
            Some(ScriptedResult::FailAfterwards(error)) => act(&self.inner).and(Err(error)),
            Some(ScriptedResult::Wait(hold)) => {
                hold.pass();
                act(&self.inner)
            }
            Some(ScriptedResult::WaitAfterwards(hold)) => {
                let answer = act(&self.inner);
                hold.pass();
                answer
            }
        }
    }
}

impl<S: StateStore> StateStore for FakeStore<S> {
    fn create(&self, record: &Record) -> Result<Revision, Error> {
        self.react(Call::Create, |store| store.create(record))
    }

    fn get(&self, id: &ContainerId) -> Result<VersionedRecord, Error> {
        self.react(Call::Get, |store| store.get(id))
    }

    fn update(&self, expected: &Revision, record: &Record) -> Result<Revision, Error> {
        self.react(Call::Update, |store| store.update(expected, record))
    }

    fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        self.react(Call::Delete, |store| store.delete(id))
    }

    fn list(&self) -> Result<Vec<ContainerId>, Error> {
        self.react(Call::List, StateStore::list)
    }
}

/// A panic of one of a test's threads is that test's business.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
