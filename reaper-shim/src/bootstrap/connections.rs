//! Connections of clients to the daemon.

use std::{
    future::Future as _,
    io,
    os::unix::net,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    time::{Sleep, sleep, timeout},
};

/// How long accept(2) is let be after it failed. What it lacks, descriptors or memory, others have
/// to give back.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections that a listener accepts, without an end: a listener that fails for a while
/// would leave the shim alive and out of reach for ever.
#[derive(Debug)]
pub(super) struct Connections {
    listener: UnixListener,
    pause: Option<Pin<Box<Sleep>>>,
    connected: watch::Sender<bool>,
}

impl Connections {
    /// Accepts from a listener. The receiver tells when there was a first connection.
    pub(super) fn new(listener: net::UnixListener) -> io::Result<(Self, watch::Receiver<bool>)> {
        listener.set_nonblocking(true)?;
        let connections = Self {
            listener: UnixListener::from_std(listener)?,
            pause: None,
            connected: watch::Sender::new(false),
        };
        let connected = connections.connected.subscribe();
        Ok((connections, connected))
    }
}

impl Stream for Connections {
    type Item = io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((connection, _)) => {
                    self.connected.send_replace(true);
                    return Poll::Ready(Some(Ok(connection)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a client is not accepted yet");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}

/// Returns if there was no connection within a time, and never otherwise.
pub(super) async fn unconnected(mut connected: watch::Receiver<bool>, limit: Duration) {
    if timeout(limit, connected.wait_for(|connected| *connected))
        .await
        .is_ok()
    {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_daemon_without_any_connection_is_unconnected() {
        let limit = Duration::from_secs(30);
        let connected = watch::Sender::new(false);
        unconnected(connected.subscribe(), limit).await;
        connected.send_replace(true);
        let waited = timeout(limit * 100, unconnected(connected.subscribe(), limit));
        waited.await.expect_err("never");
    }
}
