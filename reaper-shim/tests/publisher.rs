//! The publisher against an event server that comes and goes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::Empty,
    events::task::{TaskExit, TaskStart},
    protobuf::Message,
    shim::events::ForwardRequest,
    shim_async::{Events as EventsService, create_events},
    ttrpc::{
        self, Code,
        r#async::{Server, TtrpcContext},
    },
};
use reaper_shim::{Event, Events, Publisher};
use tempfile::TempDir;
use tokio::sync::watch;

/// What the server got, and how it answers.
#[derive(Clone, Default)]
struct Log {
    got: watch::Sender<Vec<(String, String, u32)>>,
    refuse: Arc<Mutex<Option<(u32, Code)>>>,
}

#[async_trait]
impl EventsService for Log {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let event = &request.envelope.event;
        assert_eq!(event.type_url, "containerd.events.TaskStart");
        let event = TaskStart::parse_from_bytes(&event.value).unwrap();
        if let Some((pid, code)) = *self.refuse.lock().unwrap()
            && pid == event.pid
        {
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(code, "no")));
        }
        let envelope = request.envelope.unwrap();
        assert!(envelope.timestamp.seconds > 0);
        self.got
            .send_modify(|got| got.push((envelope.namespace, envelope.topic, event.pid)));
        Ok(Empty::default())
    }
}

impl Log {
    async fn until(&self, count: usize) -> Vec<u32> {
        let mut got = self.got.subscribe();
        let got = got.wait_for(|got| got.len() >= count).await.unwrap();
        got.iter().map(|(_, _, pid)| *pid).collect()
    }
}

struct Containerd {
    server: Server,
    path: PathBuf,
}

async fn containerd(path: &Path, log: &Log) -> Containerd {
    let mut server = Server::new()
        .bind(&format!("unix://{}", path.display()))
        .unwrap()
        .register_service(create_events(Arc::new(log.clone())));
    server.start().await.unwrap();
    Containerd {
        server,
        path: path.to_owned(),
    }
}

impl Containerd {
    async fn stop(mut self) {
        self.server.shutdown().await.unwrap();
        std::fs::remove_file(&self.path).unwrap();
    }
}

fn start(pid: u32) -> Event {
    Event::Start(TaskStart {
        container_id: "web".into(),
        pid,
        ..TaskStart::default()
    })
}

fn socket() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    (dir, path)
}

fn publisher(path: &Path) -> Publisher {
    Publisher::new(path.to_str().unwrap(), "k8s.io")
}

#[tokio::test]
async fn events_arrive_in_order_with_namespace_and_topic() {
    let (_dir, path) = socket();
    let log = Log::default();
    let _containerd = containerd(&path, &log).await;
    let publisher = publisher(&path);
    for pid in 0..100 {
        publisher.publish(start(pid));
    }
    assert!(publisher.drain(Duration::from_secs(10)).await);
    assert_eq!(log.until(100).await, (0..100).collect::<Vec<_>>());
    let first = log.got.borrow()[0].clone();
    assert_eq!(
        (first.0.as_str(), first.1.as_str()),
        ("k8s.io", "/tasks/start")
    );
}

#[tokio::test]
async fn events_during_containerd_outage_are_sent_on_its_return() {
    let (_dir, path) = socket();
    let log = Log::default();
    let first = containerd(&path, &log).await;
    let publisher = publisher(&path);
    publisher.publish(start(0));
    log.until(1).await;
    first.stop().await;
    for pid in 1..20 {
        publisher.publish(start(pid));
    }
    let _second = containerd(&path, &log).await;
    // As any request of containerd does.
    publisher.retry_now();
    assert_eq!(log.until(20).await, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn retry_now_ends_the_pause() {
    let (_dir, path) = socket();
    let log = Log::default();
    let publisher = publisher(&path);
    publisher.publish(start(1));
    // Long enough for the pauses to have grown to seconds.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..20 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
    let _containerd = containerd(&path, &log).await;
    publisher.retry_now();
    let told = tokio::time::timeout(Duration::from_secs(2), log.until(1)).await;
    assert_eq!(told.expect("the pause alone would have been longer"), [1]);
}

#[tokio::test]
async fn permanently_refused_event_does_not_block_later_ones() {
    let (_dir, path) = socket();
    let log = Log::default();
    *log.refuse.lock().unwrap() = Some((1, Code::INVALID_ARGUMENT));
    let _containerd = containerd(&path, &log).await;
    let publisher = publisher(&path);
    for pid in 0..3 {
        publisher.publish(start(pid));
    }
    assert_eq!(log.until(2).await, [0, 2]);
}

#[tokio::test]
async fn temporarily_refused_event_is_retried_in_order() {
    let (_dir, path) = socket();
    let log = Log::default();
    *log.refuse.lock().unwrap() = Some((1, Code::UNAVAILABLE));
    let _containerd = containerd(&path, &log).await;
    let publisher = publisher(&path);
    publisher.publish(start(0));
    publisher.publish(start(1));
    publisher.publish(start(2));
    log.until(1).await;
    *log.refuse.lock().unwrap() = None;
    assert_eq!(log.until(3).await, [0, 1, 2]);
}

#[tokio::test]
async fn drain_without_containerd_times_out() {
    let (_dir, path) = socket();
    let publisher = publisher(&path);
    publisher.publish(Event::Exit(TaskExit::default()));
    assert!(!publisher.drain(Duration::from_millis(10)).await);
}
