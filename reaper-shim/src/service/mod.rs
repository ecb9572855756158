//! containerd's task service over an engine.
//!
//! Each request has a method of `Inner`, in the file of its topic. The methods of containerd's
//! `Task` trait only call these, and bound them here, in one place: 30 s for a request, 25 s for a
//! step of the executor, so that 5 s are left to undo a creation. A request runs as a task of its
//! own, so it is carried through when its connection closes.

mod create;
mod exec;
mod lifecycle;
pub(crate) mod options;
mod report;
mod state;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
        StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
        UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    shim_async::{Task, create_task},
    ttrpc::{
        self,
        r#async::{Service, TtrpcContext},
    },
};
use reaper_exec::{Engine, Executor};
use reaper_spec::Config;
use reaper_state::StateStore;
use tokio::sync::watch;

use crate::{
    Error, Events, Result,
    registry::Registry,
    stats::MetricsVersion,
    timeout::{bounded, unbounded},
};

/// containerd's API of shims that make sandboxes.
const SANDBOX_API: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// How a [`TaskService`] goes about its tasks.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The node's configuration. What containerd's runtime options and a pod's annotations say is
    /// applied over it, for each container.
    pub config: Config,
    /// The OOM killer's adjustment of workloads whose bundle names none. `None` leaves them with
    /// the shim's own, which protects them as the shim is protected.
    pub oom_score_adj: Option<i32>,
    /// Run a pod's sandbox by the executor, as any container, instead of without a process: for
    /// executors that make real containers, whose namespaces are found through the sandbox's pid.
    pub run_pause_process: bool,
}

/// containerd's task service: the containers of one shim, run by any executor, remembered by any
/// store.
///
/// # Order
/// For each container, events are published in the order create, start, exits of exec'd
/// processes, exit of init, delete; for each exec'd process added, started, exit. A process that
/// ends before its start was answered has its exit published after its start. From the moment of
/// its exit event on, and not before, a process reads as stopped, its waiters return, and to kill
/// it is `NotFound`.
///
/// # Bounds
/// Each request but `Wait` is answered within half a minute, and after a panic too. Kill, State
/// and Wait never wait for another request of the same container. What was begun is carried
/// through when the requester goes away.
pub struct TaskService<E, S: ?Sized> {
    inner: Arc<Inner<E, S>>,
}

struct Inner<E, S: ?Sized> {
    engine: Engine<E, S>,
    events: Arc<dyn Events>,
    registry: Arc<Registry>,
    settings: Settings,
    metrics: MetricsVersion,
    closed: watch::Sender<bool>,
    on_close: Mutex<Option<CloseHook>>,
}

type CloseHook = Box<dyn FnOnce() + Send>;

impl<E, S: ?Sized> Clone for TaskService<E, S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> TaskService<E, S> {
    /// A service without containers. The engine should keep its store off the calling thread
    /// ([`Engine::blocking_store`]).
    pub fn new(engine: Engine<E, S>, events: impl Events + 'static, settings: Settings) -> Self {
        let inner = Inner {
            engine,
            events: Arc::new(events),
            registry: Arc::default(),
            settings,
            metrics: MetricsVersion::of_node(),
            closed: watch::Sender::new(false),
            on_close: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Has `hook` called once when the service is [closed](Self::close), before the request that
    /// closes it is answered: the place to remove the socket, so that a client that has the answer
    /// does not find it. It runs on the serving thread and must not block. The last hook counts.
    pub fn on_close(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hook() = Some(Box::new(hook));
    }

    fn hook(&self) -> MutexGuard<'_, Option<CloseHook>> {
        // A slot that is set or taken: no panic leaves it half changed.
        let slot = self.inner.on_close.lock();
        slot.unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses new containers from now on, if there are none, and says whether it does.
    pub fn close(&self) -> bool {
        let closed = self.inner.registry.close_if_empty();
        if closed {
            self.tell_closed();
        }
        closed
    }

    /// Refuses new containers from now on, whatever containers there are: their monitors go on
    /// without this service, and keep how they end.
    pub fn close_with_containers(&self) {
        self.inner.registry.close();
        self.tell_closed();
    }

    fn tell_closed(&self) {
        let hook = self.hook().take();
        if let Some(hook) = hook {
            hook();
        }
        self.inner.closed.send_replace(true);
    }

    /// Waits until the service is [closed](Self::close), by a `Shutdown` request for example.
    pub async fn closed(&self) {
        let mut closed = self.inner.closed.subscribe();
        // The sender is a field of this service, so it cannot be gone.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// The service as a ttrpc server registers it: under the names of the second and the third
    /// version of the task API, which differ in nothing else. Methods of the sandbox API answer
    /// `UNIMPLEMENTED`, by which containerd tells that a shim does without it: for a service that is
    /// not registered the server would say that the request is wrong.
    pub fn services(&self) -> HashMap<String, Service> {
        let third = create_task(Arc::new(self.clone()));
        let second = create_task(Arc::new(self.clone()));
        let renamed = second.into_iter().map(|(name, service)| {
            (
                name.replace("containerd.task.v3.", "containerd.task.v2."),
                service,
            )
        });
        let sandbox = Service {
            methods: HashMap::new(),
            streams: HashMap::new(),
        };
        third
            .into_iter()
            .chain(renamed)
            .chain([(SANDBOX_API.to_owned(), sandbox)])
            .collect()
    }

    /// Serves one request, bounded.
    async fn serve<T, F>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Arc<Inner<E, S>>) -> F,
    ) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.inner.events.retry_now();
        answer(
            operation,
            bounded(operation, work(Arc::clone(&self.inner))).await,
        )
    }
}

fn answer<T>(operation: &'static str, result: Result<T>) -> ttrpc::Result<T> {
    result.map_err(|error| {
        tracing::debug!(operation, %error, "refused");
        error.into()
    })
}

#[async_trait]
impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> Task for TaskService<E, S> {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        self.serve("create", |inner| async move { inner.create(request).await })
            .await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        self.serve("start", |inner| async move { inner.start(request).await })
            .await
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        self.serve("delete", |inner| async move { inner.delete(request).await })
            .await
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        self.serve("state", |inner| async move { inner.state(request).await })
            .await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        self.serve("pids", |inner| async move { inner.pids(request).await })
            .await
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        self.serve("pause", |inner| async move { inner.pause(request).await })
            .await
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        self.serve("resume", |inner| async move { inner.resume(request).await })
            .await
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        self.serve("kill", |inner| async move { inner.kill(request).await })
            .await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.serve("exec", |inner| async move { inner.exec(request).await })
            .await
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        self.serve("resize", |inner| async move { inner.resize(request).await })
            .await
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        self.serve(
            "close I/O",
            |inner| async move { inner.close_io(request).await },
        )
        .await
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        self.inner.events.retry_now();
        let inner = Arc::clone(&self.inner);
        answer(
            "wait",
            unbounded("wait", async move { inner.wait(request).await }).await,
        )
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        self.serve("stats", |inner| async move { inner.stats(request).await })
            .await
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        self.serve(
            "connect",
            |inner| async move { Ok(inner.connect(&request)) },
        )
        .await
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        // containerd asks after each deletion; only the last one is meant.
        self.close();
        Ok(Empty::default())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        let refused = Error::Unsupported {
            operation: "checkpoint",
            target: format!("container {}", request.id),
            reason: "processes of the node have no checkpoints",
        };
        answer("checkpoint", Err(refused))
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        self.serve("update", |inner| async move { inner.update(request).await })
            .await
    }
}
