//! A container of this shim, and its exec'd processes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use containerd_shim_protos::events::task::TaskExecAdded;
use reaper_exec::Target;
use reaper_spec::{ContainerId, ExecId, PolicyConfig, Status};
use tokio::time::timeout;

use crate::{Error, Event, Events, Result, process::Process};

/// How long the exit of init is held back for the exits of exec'd processes. They have ended
/// already, so this is about messages on their way.
const EXECS_LIMIT: Duration = Duration::from_secs(5);

/// A container that exists, or has ended and was not deleted.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) bundle: String,
    pub(crate) init: Arc<Process>,
    /// It has no process of its own: see [`crate::sandbox`].
    pub(crate) sandbox: bool,
    /// Its process keeps the pid namespace of its pod, whose sandbox it is.
    pub(crate) holds_pids: bool,
    /// The policy that it was created under, which holds for its exec'd processes too.
    pub(crate) policy: PolicyConfig,
    /// Held by requests that change what the container is doing, one after the other. Kill,
    /// state and wait don't take it.
    pub(crate) lifecycle_lock: tokio::sync::Mutex<()>,
    paused: AtomicBool,
    execs: Mutex<Execs>,
}

#[derive(Debug, Default)]
struct Execs {
    /// Init has ended: nothing can be added or started any more.
    ending: bool,
    /// `None` while it is being made.
    slots: HashMap<ExecId, Option<Arc<Process>>>,
}

impl Container {
    pub(crate) fn new(
        id: ContainerId,
        bundle: String,
        init: Process,
        sandbox: bool,
        policy: PolicyConfig,
    ) -> Self {
        Self {
            id,
            bundle,
            init: Arc::new(init),
            sandbox,
            holds_pids: false,
            policy,
            lifecycle_lock: tokio::sync::Mutex::default(),
            paused: AtomicBool::new(false),
            execs: Mutex::default(),
        }
    }

    /// The same, of which it is said whether its process keeps the pid namespace of its pod.
    pub(crate) fn holding_pids(mut self, holds_pids: bool) -> Self {
        self.holds_pids = holds_pids;
        self
    }

    /// The process that a request means: init where the exec id is empty.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let exec = ExecId::new(exec_id)?;
        match self.execs().slots.get(&exec) {
            Some(Some(process)) => Ok(Arc::clone(process)),
            _ => Err(reaper_exec::Error::NotFound(Target::Exec(self.id.clone(), exec)).into()),
        }
    }

    /// Takes an exec id for a process that is being made.
    pub(crate) fn reserve_exec(self: &Arc<Self>, exec: ExecId) -> Result<ExecReservation> {
        let target = Target::Exec(self.id.clone(), exec.clone());
        let mut execs = self.execs();
        if execs.ending {
            return Err(Error::status("make", &target, Status::Stopped));
        }
        if execs.slots.contains_key(&exec) {
            return Err(reaper_exec::Error::AlreadyExists(target).into());
        }
        execs.slots.insert(exec.clone(), None);
        Ok(ExecReservation {
            container: Arc::clone(self),
            exec,
            filled: false,
        })
    }

    /// Takes the start of a process for the caller. An exec'd one can't start after init's end.
    pub(crate) fn begin_start(&self, process: &Process) -> Result<()> {
        let execs = self.execs();
        if execs.ending && process.target.exec_id().is_some() {
            return Err(Error::status("start", &process.target, Status::Stopped));
        }
        process.begin_start()
    }

    pub(crate) fn remove_exec(&self, exec: &ExecId) {
        self.execs().slots.remove(exec);
    }

    /// Refuses further exec'd processes, and waits until the exits of all are published.
    pub(crate) async fn finish_execs(&self) {
        let left: Vec<Arc<Process>> = {
            let mut execs = self.execs();
            execs.ending = true;
            execs.slots.values().flatten().map(Arc::clone).collect()
        };
        let all = async {
            for exec in left {
                exec.wait().await;
            }
        };
        if timeout(EXECS_LIMIT, all).await.is_err() {
            tracing::warn!(id = %self.id, "the container has ended, an exec'd process of it not");
        }
    }

    /// Init and the exec'd processes.
    pub(crate) fn processes(&self) -> Vec<Arc<Process>> {
        let execs = self.execs();
        let execs = execs.slots.values().flatten();
        std::iter::once(&self.init)
            .chain(execs)
            .map(Arc::clone)
            .collect()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn execs(&self) -> MutexGuard<'_, Execs> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exec id that is taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ExecReservation {
    container: Arc<Container>,
    exec: ExecId,
    filled: bool,
}

impl ExecReservation {
    /// The process was made: says so, unless init has ended meanwhile.
    pub(crate) fn fill(mut self, process: Arc<Process>, events: &dyn Events) -> Result<()> {
        let container = Arc::clone(&self.container);
        let mut execs = container.execs();
        if execs.ending {
            // The reservation is given back below, when the lock is free again.
            drop(execs);
            return Err(Error::status("make", &process.target, Status::Stopped));
        }
        execs.slots.insert(self.exec.clone(), Some(process));
        self.filled = true;
        events.publish(Event::ExecAdded(TaskExecAdded {
            container_id: container.id.to_string(),
            exec_id: self.exec.to_string(),
            ..TaskExecAdded::default()
        }));
        Ok(())
    }
}

impl Drop for ExecReservation {
    fn drop(&mut self) {
        if !self.filled {
            self.container.remove_exec(&self.exec);
        }
    }
}
