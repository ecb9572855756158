//! Passing events on to containerd, in order, whether it is there or not.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::{
    protobuf::MessageField,
    shim::{event::Envelope, events::ForwardRequest},
    shim_async::{Client, EventsClient},
    ttrpc::{self, asynchronous::transport::Socket, context},
};
use reaper_spec::Timestamp;
use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{Event, Events, process::proto_time};

/// How long containerd may take to accept one event.
const FORWARD_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before an event is tried again: at first, and at most. A request to the shim
/// ends the pause early ([`Events::retry_now`]).
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often containerd may refuse an event before the next one gets its turn. Not being there is
/// no refusal.
const REFUSALS: u32 = 8;

/// Passes events on to containerd's event service.
///
/// There is one queue. Its head is tried until containerd has it, so events arrive in order and,
/// where an answer was lost, twice rather than never. While the queue is empty it does nothing.
#[derive(Debug, Clone)]
pub struct Publisher {
    namespace: Arc<str>,
    queue: mpsc::UnboundedSender<Item>,
    wake_up: Arc<Notify>,
}

#[derive(Debug)]
enum Item {
    Event(Box<Envelope>),
    /// Answered when all that came before is delivered.
    Flush(oneshot::Sender<()>),
}

impl Publisher {
    /// A publisher of events of the containerd namespace `namespace` to the ttrpc socket
    /// `address`, a path with or without `unix://`. It must be made inside of a Tokio runtime.
    pub fn new(address: &str, namespace: &str) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let wake_up = Arc::new(Notify::new());
        let delivery = Delivery {
            path: address
                .strip_prefix("unix://")
                .unwrap_or(address)
                .to_owned(),
            client: None,
            wake_up: Arc::clone(&wake_up),
        };
        tokio::spawn(delivery.run(items));
        Self {
            namespace: namespace.into(),
            queue,
            wake_up,
        }
    }

    /// Waits until all that was published is delivered, at most for `limit`, and says whether it
    /// is.
    pub async fn drain(&self, limit: Duration) -> bool {
        let (done, delivered) = oneshot::channel();
        let sent = self.queue.send(Item::Flush(done)).is_ok();
        self.wake_up.notify_one();
        sent && matches!(timeout(limit, delivered).await, Ok(Ok(())))
    }
}

impl Events for Publisher {
    fn publish(&self, event: Event) {
        let any = match event.to_any() {
            Ok(any) => any,
            Err(error) => {
                tracing::error!(topic = event.topic(), %error, "an event cannot be encoded");
                return;
            }
        };
        let envelope = Envelope {
            timestamp: proto_time(Timestamp::now()),
            namespace: self.namespace.to_string(),
            topic: event.topic().to_owned(),
            event: MessageField::some(any),
            ..Envelope::default()
        };
        if self.queue.send(Item::Event(Box::new(envelope))).is_err() {
            tracing::error!(
                topic = event.topic(),
                "the publisher has ended, an event is lost"
            );
        }
    }

    fn retry_now(&self) {
        // Only one that waits is woken: a wake-up is not kept for the next failure.
        self.wake_up.notify_waiters();
    }
}

struct Delivery {
    path: String,
    client: Option<EventsClient>,
    wake_up: Arc<Notify>,
}

impl Delivery {
    async fn run(mut self, mut items: mpsc::UnboundedReceiver<Item>) {
        while let Some(item) = items.recv().await {
            match item {
                Item::Event(envelope) => self.deliver(*envelope).await,
                // Who asked may have stopped waiting.
                Item::Flush(done) => drop(done.send(())),
            }
        }
    }

    async fn deliver(&mut self, envelope: Envelope) {
        let request = ForwardRequest {
            envelope: MessageField::some(envelope),
            ..ForwardRequest::default()
        };
        let (mut pause, mut refusals) = (FIRST_PAUSE, 0);
        loop {
            let error = match self.forward(&request).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let topic = &request.envelope.topic;
            tracing::info!(topic, %error, "an event could not be delivered yet");
            if is_refusal(&error) {
                refusals += 1;
                if refusals == REFUSALS {
                    tracing::warn!(topic, %error, "containerd refuses an event, it is dropped");
                    return;
                }
                sleep(pause).await;
            } else {
                // The connection may be broken: connect again.
                self.client = None;
                // The event is tried again after the pause, or when a client calls the shim.
                let _ = timeout(pause, self.wake_up.notified()).await;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn forward(&mut self, request: &ForwardRequest) -> ttrpc::Result<()> {
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(connect(&self.path).await?),
        };
        client
            .forward(context::with_duration(FORWARD_LIMIT), request)
            .await?;
        Ok(())
    }
}

fn is_refusal(error: &ttrpc::Error) -> bool {
    matches!(error, ttrpc::Error::RpcStatus(status) if status.code() != ttrpc::Code::UNAVAILABLE)
}

async fn connect(path: &str) -> ttrpc::Result<EventsClient> {
    // ttrpc's own connect blocks the thread when containerd's backlog is full.
    let stream = UnixStream::connect(path)
        .await
        .map_err(|error| ttrpc::Error::Socket(format!("connect to {path}: {error}")))?;
    Ok(EventsClient::new(Client::new(Socket::from(stream))))
}
