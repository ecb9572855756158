//! A task service over a scripted executor, and what it publishes.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use containerd_shim_protos::{
    api::*,
    protobuf::{MessageField, well_known_types::any::Any},
    shim_async::Task,
    ttrpc::{self, Code, r#async::TtrpcContext},
};
use reaper_exec::{Engine, FakeExecutor, Target};
use reaper_shim::{Event, Events, Settings, TaskService};
use reaper_spec::{ContainerId, ExecId};
use reaper_state::{MemoryStore, StateRoot};
use tempfile::TempDir;
use tokio::sync::watch;

/// What was published, one short text for each event.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    seen: Arc<Mutex<Vec<String>>>,
    changed: watch::Sender<usize>,
}

impl Events for Recorder {
    fn publish(&self, event: Event) {
        let text = match event {
            Event::Create(event) => format!("create {}", event.container_id),
            Event::Start(event) => format!("start {}", event.container_id),
            Event::ExecAdded(event) => format!("added {}", event.exec_id),
            Event::ExecStarted(event) => format!("started {}", event.exec_id),
            Event::Paused(event) => format!("paused {}", event.container_id),
            Event::Resumed(event) => format!("resumed {}", event.container_id),
            Event::Exit(event) => format!("exit {} {}", event.id, event.exit_status),
            Event::Delete(event) => format!("delete {} {}", event.container_id, event.exit_status),
            other => format!("{other:?}"),
        };
        self.seen.lock().unwrap().push(text);
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Recorder {
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `count` events were published, and returns all.
    pub(crate) async fn until(&self, count: usize) -> Vec<String> {
        self.changed
            .subscribe()
            .wait_for(|published| *published >= count)
            .await
            .unwrap();
        self.seen()
    }
}

/// A service and what it is made of.
pub(crate) struct Shim {
    pub(crate) service: TaskService<FakeExecutor, MemoryStore>,
    pub(crate) fake: FakeExecutor,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) events: Recorder,
    dir: TempDir,
}

pub(crate) type Answer<T> = ttrpc::Result<T>;

pub(crate) fn shim() -> Shim {
    shim_with(Settings::default())
}

pub(crate) fn shim_with(settings: Settings) -> Shim {
    let dir = tempfile::tempdir().unwrap();
    let (fake, store, events) = (
        FakeExecutor::new(),
        Arc::new(MemoryStore::new()),
        Recorder::default(),
    );
    let engine = Engine::new(fake.clone(), Arc::clone(&store), StateRoot::new(dir.path()));
    let service = TaskService::new(engine, events.clone(), settings);
    Shim {
        service,
        fake,
        store,
        events,
        dir,
    }
}

pub(crate) fn init(id: &str) -> Target {
    Target::Init(ContainerId::new(id).unwrap())
}

pub(crate) fn exec(id: &str, exec: &str) -> Target {
    Target::Exec(ContainerId::new(id).unwrap(), ExecId::new(exec).unwrap())
}

/// Lets every task that can run do so.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn code<T: std::fmt::Debug>(answer: Answer<T>) -> Code {
    match answer.expect_err("an error was expected") {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("no status: {other}"),
    }
}

pub(crate) fn message<T: std::fmt::Debug>(answer: Answer<T>) -> String {
    match answer.expect_err("an error was expected") {
        ttrpc::Error::RpcStatus(status) => status.message,
        other => panic!("no status: {other}"),
    }
}

pub(crate) fn write_bundle(bundle: &Path, args: &str, annotations: &str) {
    std::fs::create_dir_all(bundle).unwrap();
    let config =
        format!(r#"{{"process":{{"args":{args},"cwd":"/"}},"annotations":{{{annotations}}}}}"#);
    std::fs::write(bundle.join("config.json"), config).unwrap();
}

impl Shim {
    pub(crate) fn bundle(&self, id: &str) -> String {
        self.dir
            .path()
            .join("bundles")
            .join(id)
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn create(&self, id: &str) -> Answer<CreateTaskResponse> {
        self.create_as(id, r#"["/bin/true"]"#, "").await
    }

    pub(crate) async fn create_as(
        &self,
        id: &str,
        args: &str,
        annotations: &str,
    ) -> Answer<CreateTaskResponse> {
        let bundle = self.bundle(id);
        write_bundle(Path::new(&bundle), args, annotations);
        let request = CreateTaskRequest {
            id: id.into(),
            bundle,
            ..Default::default()
        };
        self.service.create(&TtrpcContext::default(), request).await
    }

    pub(crate) async fn start(&self, id: &str, exec_id: &str) -> Answer<StartResponse> {
        let request = StartRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.service.start(&TtrpcContext::default(), request).await
    }

    /// A container that runs.
    pub(crate) async fn run(&self, id: &str) {
        self.create(id).await.unwrap();
        self.start(id, "").await.unwrap();
    }

    pub(crate) async fn exec(&self, id: &str, exec_id: &str) -> Answer<Empty> {
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: br#"{"args":["/bin/true"],"cwd":"/"}"#.to_vec(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            spec: MessageField::some(spec),
            ..Default::default()
        };
        self.service.exec(&TtrpcContext::default(), request).await
    }

    pub(crate) async fn kill(&self, id: &str, exec_id: &str, signal: u32) -> Answer<Empty> {
        let request = KillRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            signal,
            ..Default::default()
        };
        self.service.kill(&TtrpcContext::default(), request).await
    }

    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> Answer<WaitResponse> {
        let request = WaitRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.service.wait(&TtrpcContext::default(), request).await
    }

    pub(crate) async fn delete(&self, id: &str, exec_id: &str) -> Answer<DeleteResponse> {
        let request = DeleteRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.service.delete(&TtrpcContext::default(), request).await
    }

    pub(crate) async fn state(&self, id: &str, exec_id: &str) -> Answer<StateResponse> {
        let request = StateRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.service.state(&TtrpcContext::default(), request).await
    }

    pub(crate) async fn status(&self, id: &str, exec_id: &str) -> Status {
        self.state(id, exec_id).await.unwrap().status.unwrap()
    }

    pub(crate) async fn stats(&self, id: &str) -> Answer<StatsResponse> {
        let request = StatsRequest {
            id: id.into(),
            ..Default::default()
        };
        self.service.stats(&TtrpcContext::default(), request).await
    }

    pub(crate) async fn connect(&self, id: &str) -> ConnectResponse {
        let request = ConnectRequest {
            id: id.into(),
            ..Default::default()
        };
        self.service
            .connect(&TtrpcContext::default(), request)
            .await
            .unwrap()
    }

    pub(crate) async fn shutdown(&self) {
        self.service
            .shutdown(&TtrpcContext::default(), ShutdownRequest::default())
            .await
            .unwrap();
    }
}
