//! An isolation that does what a test's script says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    contract::{Error, FilesystemIsolation, Housekeeping, View, ViewRequest},
    isolation::HostRoot,
};

/// A call of a [`FilesystemIsolation`] or of one of its [`View`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`FilesystemIsolation::prepare`].
    Prepare,
    /// [`FilesystemIsolation::collect`].
    Collect,
    /// [`FilesystemIsolation::forget`].
    Forget,
    /// [`View::enter`]. It is called in a forked child, which goes on counting for itself: what
    /// it counts is not seen in its parent, nor in other children.
    Enter,
    /// [`View::entered`].
    Entered,
    /// [`View::release`].
    Release,
}

/// An isolation for tests of those who use one: it counts its calls, and fails where its script
/// says. Else it does what another isolation does, [`HostRoot`] where none is named.
///
/// Clones are the same isolation.
///
/// ```
/// use reaper_overlay::{Error, FakeCall, FakeIsolation, FilesystemIsolation, ViewRequest};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let request = ViewRequest::new("web".parse()?, "/".into());
/// let isolation = FakeIsolation::new();
/// isolation.fail(FakeCall::Prepare, 2, Error::NoImage);
///
/// let mut view = isolation.prepare(&request)?;
/// assert!(isolation.prepare(&request).is_err(), "the second one fails");
/// view.release()?;
/// assert_eq!(isolation.calls(FakeCall::Prepare), 2);
/// assert_eq!(isolation.calls(FakeCall::Release), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeIsolation<I = HostRoot> {
    inner: I,
    script: Script,
}

impl FakeIsolation {
    /// One that fails where its script says, and else shows the host.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<I: FilesystemIsolation> FakeIsolation<I> {
    /// One that does what `inner` does, but where its script says otherwise.
    pub fn over(inner: I) -> Self {
        Self {
            inner,
            script: Script::default(),
        }
    }

    /// The call number `number` of this kind, from 1 on, fails with `error`, and does nothing.
    pub fn fail(&self, call: Call, number: usize, error: Error) {
        self.script.lock().failures.insert((call, number), error);
    }

    /// How many calls of this kind there were in this process, failed ones included.
    pub fn calls(&self, call: Call) -> usize {
        self.script.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// What views were asked for, in order.
    pub fn requests(&self) -> Vec<ViewRequest> {
        self.script.lock().requests.clone()
    }
}

#[derive(Debug, Clone, Default)]
struct Script(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    calls: HashMap<Call, usize>,
    failures: HashMap<(Call, usize), Error>,
    requests: Vec<ViewRequest>,
}

impl Script {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // The lines are whole after any panic: each change of them is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and fails if it is to.
    fn next(&self, call: Call) -> Result<(), Error> {
        let mut lines = self.lock();
        let number = lines.calls.entry(call).or_default();
        *number += 1;
        let key = (call, *number);
        lines.failures.remove(&key).map_or(Ok(()), Err)
    }
}

impl<I: FilesystemIsolation> FilesystemIsolation for FakeIsolation<I> {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        self.script.lock().requests.push(request.clone());
        self.script.next(Call::Prepare)?;
        Ok(Box::new(FakeView {
            inner: self.inner.prepare(request)?,
            script: self.script.clone(),
        }))
    }

    fn collect(&self, request: &ViewRequest) -> Result<(), Error> {
        self.script.next(Call::Collect)?;
        self.inner.collect(request)
    }

    fn forget(&self, request: &ViewRequest) -> Result<(), Error> {
        self.script.next(Call::Forget)?;
        self.inner.forget(request)
    }

    fn housekeeping(&self, request: &ViewRequest) -> Option<Housekeeping> {
        self.inner.housekeeping(request)
    }
}

struct FakeView {
    inner: Box<dyn View>,
    script: Script,
}

impl View for FakeView {
    fn enter(&self, first: bool) -> Result<(), Error> {
        self.script.next(Call::Enter)?;
        self.inner.enter(first)
    }

    fn entered(&mut self, pid: u32) -> Result<(), Error> {
        self.script.next(Call::Entered)?;
        self.inner.entered(pid)
    }

    fn environment(&self) -> Vec<String> {
        self.inner.environment()
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    fn release(&mut self) -> Result<(), Error> {
        self.script.next(Call::Release)?;
        self.inner.release()
    }
}
