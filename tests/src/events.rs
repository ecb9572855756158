//! containerd's events, in the order in which it has published them.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use containerd_client::{
    events::{
        TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOom, TaskPaused,
        TaskResumed, TaskStart,
    },
    services::v1::{PublishRequest, SubscribeRequest, events_client::EventsClient},
};
use prost::{Message, Name};
use prost_types::Any;

use crate::{
    Node,
    api::Api,
    containerd::locked,
    runtime::{LIMIT, spawn},
};

/// What the collector publishes itself until it sees it: then it hears everything.
const READY: &str = "/reaper-tests/ready";

/// A task's event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// For example `/tasks/exit`.
    pub topic: String,
    /// The container.
    pub container: String,
    /// The exec, or the container for init, or nothing, as containerd has it.
    pub id: String,
    /// The pid, where it says one.
    pub pid: u32,
    /// The exit code, where it says one.
    pub code: Option<u32>,
}

impl Event {
    fn with_pid(self, pid: u32) -> Self {
        Self { pid, ..self }
    }

    fn with_end(self, id: String, code: u32) -> Self {
        let code = Some(code);
        Self { id, code, ..self }
    }
}

/// Collects the events of one namespace from its making on.
#[derive(Debug)]
pub struct Events {
    seen: Arc<(Mutex<Vec<Event>>, Condvar)>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Collects the events of this node's own namespace from now on, until containerd stops.
    pub fn events(&self) -> Events {
        self.events_in(self.marker())
    }

    /// Collects the events of a namespace from now on, until containerd stops.
    pub fn events_in(&self, namespace: &str) -> Events {
        Events::subscribe(&self.api_in(namespace), namespace)
    }
}

impl Events {
    fn subscribe(api: &Api, namespace: &str) -> Self {
        let seen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let mut client = EventsClient::new(api.channel());
        let filters = vec![format!("namespace=={namespace}")];
        let subscription = SubscribeRequest { filters };
        let collected = Arc::clone(&seen);
        let mut subscriber = client.clone();
        let task = spawn(async move {
            let Ok(answer) = subscriber.subscribe(subscription).await else {
                return;
            };
            let mut stream = answer.into_inner();
            while let Ok(Some(envelope)) = stream.message().await {
                let (events, changed) = &*collected;
                locked(events).push(decode(envelope.topic, envelope.event.unwrap_or_default()));
                changed.notify_all();
            }
        });
        let events = Self { seen, task };
        // Nobody says when a subscription has begun, but for an event that arrives.
        let start = Instant::now();
        loop {
            let event = Some(Any::default());
            let request = api.request(PublishRequest {
                topic: READY.to_owned(),
                event,
            });
            Api::call(client.publish(request)).expect("publish an event");
            let ready = |event: &Event| event.topic == READY;
            if events
                .wait_within(Duration::from_millis(50), ready)
                .is_some()
            {
                return events;
            }
            assert!(
                start.elapsed() < LIMIT,
                "no subscription to events within {LIMIT:?}"
            );
        }
    }

    /// The exit code in the event of the exit of `container`'s init process, once there is one.
    pub fn exit_code(&self, container: &str) -> Option<u32> {
        let is_exit = |event: &Event| event.topic == "/tasks/exit" && event.container == container;
        self.wait_for("its exit", is_exit).code
    }

    /// The first event that fits, now or later. Panics with all events when it takes too long.
    pub fn wait_for(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        self.wait_within(LIMIT, fits)
            .unwrap_or_else(|| panic!("no event: {what}; there were {:#?}", self.all()))
    }

    /// Waits for a container's last event and returns all topics of it, in order.
    pub fn topics_of(&self, container: &str) -> Vec<String> {
        self.wait_for(&format!("the deletion of {container}"), |event| {
            event.topic == "/tasks/delete" && event.container == container
        });
        self.of(container)
            .into_iter()
            .map(|event| event.topic)
            .collect()
    }

    /// The events of a container so far.
    pub fn of(&self, container: &str) -> Vec<Event> {
        self.all()
            .into_iter()
            .filter(|event| event.container == container)
            .collect()
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Event> {
        locked(&self.seen.0)
            .iter()
            .filter(|event| event.topic != READY)
            .cloned()
            .collect()
    }

    fn wait_within(&self, limit: Duration, fits: impl Fn(&Event) -> bool) -> Option<Event> {
        let (events, changed) = &*self.seen;
        let guard = locked(events);
        let (guard, _) = changed
            .wait_timeout_while(guard, limit, |events| !events.iter().any(&fits))
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.iter().find(|event| fits(event)).cloned()
    }
}

/// Reads the event of a task; of others only the topic.
fn decode(topic: String, event: Any) -> Event {
    fn read<M: Message + Name + Default>(event: &Any) -> M {
        M::decode(event.value.as_slice()).unwrap_or_default()
    }
    let named = |container: String| Event {
        container,
        ..Event::default()
    };
    let mut decoded = match topic.as_str() {
        "/tasks/create" => {
            let event: TaskCreate = read(&event);
            named(event.container_id).with_pid(event.pid)
        }
        "/tasks/start" => {
            let event: TaskStart = read(&event);
            named(event.container_id).with_pid(event.pid)
        }
        "/tasks/exit" => {
            let event: TaskExit = read(&event);
            named(event.container_id)
                .with_pid(event.pid)
                .with_end(event.id, event.exit_status)
        }
        "/tasks/delete" => {
            let event: TaskDelete = read(&event);
            named(event.container_id)
                .with_pid(event.pid)
                .with_end(event.id, event.exit_status)
        }
        "/tasks/exec-added" => {
            let event: TaskExecAdded = read(&event);
            Event {
                id: event.exec_id,
                ..named(event.container_id)
            }
        }
        "/tasks/exec-started" => {
            let event: TaskExecStarted = read(&event);
            Event {
                id: event.exec_id,
                ..named(event.container_id).with_pid(event.pid)
            }
        }
        "/tasks/oom" => named(read::<TaskOom>(&event).container_id),
        "/tasks/paused" => named(read::<TaskPaused>(&event).container_id),
        "/tasks/resumed" => named(read::<TaskResumed>(&event).container_id),
        _ => Event::default(),
    };
    decoded.topic = topic;
    decoded
}
