//! A connection to a monitor, shared by any number of requests.
//!
//! A task reads the answers and passes each on by its serial, so requests overlap, and a request
//! whose future is dropped only loses its answer.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::children::Child;
use crate::{
    channel,
    protocol::{Envelope, Failure, Request, Response, ResponseMessage, VERSION},
    sys,
};

type Reply = Result<Response, Failure>;

/// Why a request has no response.
#[derive(Debug)]
pub(super) enum ClientError {
    /// The monitor has closed the connection.
    Closed,
    /// The request could not be sent.
    Send(io::Error),
}

/// The requests that wait for their responses; `None` once there will be no more.
type Pending = Option<HashMap<u64, oneshot::Sender<Reply>>>;

#[derive(Debug)]
struct Shared {
    socket: AsyncFd<OwnedFd>,
    pending: Mutex<Pending>,
    /// The monitor was waited for in vain, and has not answered since.
    silent: AtomicBool,
    /// The container was killed, so that its exit is due.
    killed: AtomicBool,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // The map is whole after any panic: each change of it is one call.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a monitor.
#[derive(Debug)]
pub(super) struct MonitorClient {
    shared: Arc<Shared>,
    serial: AtomicU64,
    reader: JoinHandle<()>,
    ended: watch::Receiver<bool>,
    child: Option<Arc<Child>>,
}

impl MonitorClient {
    /// Connects to the monitor that listens at `path`.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        Self::new(channel::connect(path)?, None)
    }

    /// A connection over `socket`, to a child of this process if there is one.
    pub(super) fn new(socket: OwnedFd, child: Option<Child>) -> io::Result<Self> {
        let socket = sys::watch(socket, Interest::READABLE | Interest::WRITABLE)?;
        let shared = Arc::new(Shared {
            socket,
            pending: Mutex::new(Some(HashMap::new())),
            silent: AtomicBool::new(false),
            killed: AtomicBool::new(false),
        });
        let child = child.map(Arc::new);
        let mut reaped = child.clone().map(reap);
        let (sender, ended) = watch::channel(false);
        let reading = Arc::clone(&shared);
        let reader = tokio::spawn(async move {
            while let Ok(Some(response)) = receive(&reading.socket).await {
                reading.silent.store(false, Ordering::Relaxed);
                let waiting = reading
                    .pending()
                    .as_mut()
                    .and_then(|map| map.remove(&response.serial));
                if let Some(waiting) = waiting {
                    // The receiver may have been dropped; the answer is then not needed.
                    let _ = waiting.send(response.response);
                }
            }
            // Dropping the senders ends all waiting requests.
            *reading.pending() = None;
            if let Some(reaped) = &mut reaped {
                // An error is the end of the runtime.
                let _ = reaped.wait_for(|reaped| *reaped).await;
            }
            let _ = sender.send(true);
        });
        Ok(Self {
            shared,
            serial: AtomicU64::new(1),
            reader,
            ended,
            child,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.shared.pending().is_some()
    }

    /// Whether the monitor has not answered since [`note_silence`](Self::note_silence).
    pub(super) fn is_silent(&self) -> bool {
        self.shared.silent.load(Ordering::Relaxed)
    }

    /// Whether [`note_killed`](Self::note_killed) was called.
    pub(super) fn is_killed(&self) -> bool {
        self.shared.killed.load(Ordering::Relaxed)
    }

    /// Notes that the container was killed.
    pub(super) fn note_killed(&self) {
        self.shared.killed.store(true, Ordering::Relaxed);
    }

    /// Notes that the monitor was waited for in vain.
    pub(super) fn note_silence(&self) {
        self.shared.silent.store(true, Ordering::Relaxed);
    }

    pub(super) async fn call(
        &self,
        call: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, ClientError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.shared
            .pending()
            .as_mut()
            .ok_or(ClientError::Closed)?
            .insert(serial, sender);
        let _forget = Forget {
            shared: &self.shared,
            serial,
        };
        let envelope = Envelope {
            version: VERSION,
            serial,
        };
        send(&self.shared.socket, &(envelope, call), descriptors).await?;
        receiver.await.map_err(|_| ClientError::Closed)
    }

    /// Kills the monitor, if it is this program's own.
    pub(super) fn kill(&self) {
        if let Some(child) = &self.child {
            child.kill();
        }
    }

    /// Whether the monitor has [`ended`](Self::ended) by SIGKILL. Of another program's nothing is known.
    pub(super) fn was_killed(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.was_killed())
    }

    /// Waits, but not for longer than `limit`, until the monitor has closed the connection, and,
    /// if it is this program's own child, has ended and is reaped. False after the limit.
    pub(super) async fn ended(&self, limit: Duration) -> bool {
        let mut ended = self.ended.clone();
        // An error of the wait means that the reader was stopped, which ends the connection too.
        let waited = tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await;
        waited.is_ok()
    }
}

/// Reaps a monitor when it exits, even if the connection to it was dropped.
fn reap(child: Arc<Child>) -> watch::Receiver<bool> {
    let (sender, reaped) = watch::channel(false);
    tokio::spawn(async move {
        child.reaped().await;
        let _ = sender.send(true);
    });
    reaped
}

impl Drop for MonitorClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Removes a request whose future was dropped from the map.
struct Forget<'a> {
    shared: &'a Shared,
    serial: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(map) = self.shared.pending().as_mut() {
            map.remove(&self.serial);
        }
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<ResponseMessage>> {
    let message = socket
        .async_io(Interest::READABLE, |socket| {
            channel::receive(socket.as_fd())
        })
        .await?;
    message.map(|message| message.parse()).transpose()
}

async fn send(
    socket: &AsyncFd<OwnedFd>,
    (envelope, call): &(Envelope, &Request),
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ClientError> {
    let request = OutgoingRequest { envelope, call };
    let sent = socket
        .async_io(Interest::WRITABLE, |socket| {
            channel::send(socket.as_fd(), &request, descriptors)
        })
        .await;
    match sent {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Err(ClientError::Closed)
        }
        Err(error) => Err(ClientError::Send(error)),
    }
}

/// A [`RequestMessage`](crate::protocol::RequestMessage) whose request is borrowed.
#[derive(serde::Serialize)]
struct OutgoingRequest<'a> {
    #[serde(flatten)]
    envelope: &'a Envelope,
    call: &'a Request,
}
