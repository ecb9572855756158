//! A scripted executor without processes, for tests.

mod state;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use reaper_overlay::ViewRequest;
use reaper_spec::{
    ConsoleSize, ContainerId, ExecId, Exit, ExitStatus, ProcessIdentity, Resources, Status,
};
use tokio::sync::watch;

use self::state::State;
use crate::{
    executor::{
        ContainerState, CreateRequest, CreatedProcess, Error, ExecRequest, Executor, ProcessInfo,
        Result, Stats, Target,
    },
    signal::Signal,
};

/// A call of an [`Executor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    Create,
    Exec,
    Start,
    Kill,
    Wait,
    ResizePty,
    CloseStdin,
    Pause,
    Resume,
    Update,
    Pids,
    Stats,
    State,
    Delete,
    RemoveView,
}

/// An executor without processes, for tests of races and failures. It keeps the contract of
/// [`Executor`], and passes its conformance suite.
///
/// A process lasts until [`exit`](Self::exit) or a signal, any but 0, ends it. Five programs are
/// known: `exit N` ends at once with that code, `missing` cannot be executed, `ignore N` ignores that
/// signal, `handle N CODE` exits with the code when it gets that signal, and any other lasts.
/// A paused container gets signals other than SIGKILL when it is resumed. Of limits it keeps that of
/// processes, refuses any of CPUs, and takes no notice of others.
/// Every call can be [held](Self::hold) before it does anything, or [after](Self::hold_answer),
/// and can [fail](Self::fail_next) or [panic](Self::panic_next).
///
/// Clones are handles of one executor.
///
/// ```
/// use reaper_exec::{Executor as _, FakeCall, FakeExecutor, Signal, Target};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fake = FakeExecutor::new();
/// let target = Target::Init("web-1".parse()?);
/// let missing = fake.kill(&target, Signal::TERM, false).await.unwrap_err();
/// assert_eq!(missing.to_string(), "container web-1 does not exist");
/// assert_eq!(fake.calls(FakeCall::Kill), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeExecutor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    held: watch::Sender<HashSet<Hold>>,
}

/// Where calls wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Hold {
    call: Call,
    /// The process whose calls are held; `None` for all processes.
    target: Option<Target>,
    /// After the call has done its work, not before.
    answer: bool,
}

#[derive(Debug)]
enum Failure {
    Error(Error),
    Panic,
}

impl FakeExecutor {
    /// One that has no containers.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on calls of this kind wait, before they do anything, until they are released. A
    /// wait is held once the end is known.
    pub fn hold(&self, call: Call) {
        self.shut(call, None, false);
    }

    /// Lets go of the calls that wait, and of those to come.
    pub fn release(&self, call: Call) {
        self.open(call, None, false);
    }

    /// As [`hold`](Self::hold), for the calls about one process alone.
    pub fn hold_for(&self, call: Call, target: &Target) {
        self.shut(call, Some(target.clone()), false);
    }

    /// Lets go of what [`hold_for`](Self::hold_for) holds.
    pub fn release_for(&self, call: Call, target: &Target) {
        self.open(call, Some(target.clone()), false);
    }

    /// From now on calls of this kind do what they are to do, and wait before they return. Calls
    /// that fail are not held.
    pub fn hold_answer(&self, call: Call) {
        self.shut(call, None, true);
    }

    /// Lets go of what [`hold_answer`](Self::hold_answer) holds.
    pub fn release_answer(&self, call: Call) {
        self.open(call, None, true);
    }

    /// The next call of this kind fails, and does nothing else. A start that fails with
    /// [`Error::Execve`] ends its process, as the contract has it.
    pub fn fail_next(&self, call: Call, error: Error) {
        self.state().failures.insert(call, Failure::Error(error));
    }

    /// The next call of this kind panics, and does nothing else.
    pub fn panic_next(&self, call: Call) {
        self.state().failures.insert(call, Failure::Panic);
    }

    /// A process ends by itself, and with init all of its container.
    pub fn exit(&self, target: &Target, code: u8) {
        self.state().end(target, ExitStatus::Exited { code });
    }

    /// Whether the process is known: made, and not deleted.
    pub fn exists(&self, target: &Target) -> bool {
        self.state().processes.contains_key(target)
    }

    /// How often this was called.
    pub fn calls(&self, call: Call) -> usize {
        let state = self.state();
        state
            .entered
            .iter()
            .filter(|&&entered| entered == call)
            .count()
    }

    fn shut(&self, call: Call, target: Option<Target>, answer: bool) {
        let hold = Hold {
            call,
            target,
            answer,
        };
        self.0.held.send_modify(|held| _ = held.insert(hold));
    }

    fn open(&self, call: Call, target: Option<Target>, answer: bool) {
        let hold = Hold {
            call,
            target,
            answer,
        };
        self.0.held.send_modify(|held| _ = held.remove(&hold));
    }

    /// One call: waits where it is held, fails if it shall, and does `work` otherwise.
    async fn scripted<T>(
        &self,
        call: Call,
        target: &Target,
        work: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let failure = {
            let mut state = self.state();
            state.entered.push(call);
            state.failures.remove(&call)
        };
        self.pass(call, target, false).await;
        match failure {
            None => {}
            Some(Failure::Error(error)) => return Err(error),
            Some(Failure::Panic) => panic!("scripted in {call:?}"),
        }
        let done = work(&mut self.state())?;
        self.pass(call, target, true).await;
        Ok(done)
    }

    /// Waits until no call is held there.
    async fn pass(&self, call: Call, target: &Target, answer: bool) {
        let concerns = |hold: &Hold| {
            (hold.call, hold.answer) == (call, answer)
                && hold.target.as_ref().is_none_or(|of| of == target)
        };
        let mut held = self.0.held.subscribe();
        // An error would be the end of the sender, which `self` owns.
        let _ = held.wait_for(|held| !held.iter().any(concerns)).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        let target = Target::Init(request.container.id);
        self.scripted(Call::Create, &target, |state| {
            state.make(target.clone(), request.container.process)
        })
        .await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        let target = Target::Exec(id.clone(), exec.clone());
        self.scripted(Call::Exec, &target, |state| {
            state.find_in(&Target::Init(id.clone()), Status::Running, "exec in")?;
            state.make(target.clone(), request.process)
        })
        .await
    }

    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        let started = self
            .scripted(Call::Start, target, |state| state.start(target))
            .await;
        if matches!(started, Err(Error::Execve { .. })) {
            self.exit(target, 127);
        }
        started
    }

    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        self.scripted(Call::Kill, target, |state| {
            if state.find(target)?.status == Status::Stopped {
                return Err(Error::Ended(target.clone()));
            }
            state.signal(target, signal, all);
            Ok(())
        })
        .await
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        let mut end = self.state().find(target)?.end.subscribe();
        let exit = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|end| end.clone());
        self.scripted(Call::Wait, target, |_| {
            exit.ok_or_else(|| Error::NotFound(target.clone()))
        })
        .await
    }

    async fn resize_pty(&self, target: &Target, _size: ConsoleSize) -> Result<()> {
        self.scripted(Call::ResizePty, target, |state| {
            state.find(target).map(drop)
        })
        .await
    }

    async fn close_stdin(&self, target: &Target) -> Result<()> {
        self.scripted(Call::CloseStdin, target, |state| {
            state.find(target).map(drop)
        })
        .await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        let target = Target::Init(id.clone());
        self.scripted(Call::Pause, &target, |state| {
            state.find_in(&target, Status::Running, "pause")?.status = Status::Paused;
            Ok(())
        })
        .await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        let target = Target::Init(id.clone());
        self.scripted(Call::Resume, &target, |state| state.resume(&target))
            .await
    }

    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let target = Target::Init(id.clone());
        self.scripted(Call::Update, &target, |state| {
            state.update(&target, resources)
        })
        .await
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        let target = Target::Init(id.clone());
        self.scripted(Call::Pids, &target, |state| state.pids(&target))
            .await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let target = Target::Init(id.clone());
        self.scripted(Call::Stats, &target, |state| state.stats(&target))
            .await
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        let target = Target::Init(id.clone());
        self.scripted(Call::State, &target, |state| {
            let process = state.find(&target)?;
            Ok(ContainerState {
                status: process.status,
                process: Some(process.identity.clone()),
                monitor: None,
                exit: process.end.borrow().clone(),
            })
        })
        .await
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        self.scripted(Call::Delete, target, |state| state.delete(target))
            .await
    }

    async fn remove_view(&self, view: &ViewRequest) -> Result<()> {
        let target = Target::Init(view.id.clone());
        self.scripted(Call::RemoveView, &target, |_| Ok(())).await
    }
}
