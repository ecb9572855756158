//! Accepting connections, also when descriptors are short.
//!
//! The ttrpc server asks its listener for the next connection again at once after an error. With no
//! descriptor left that would be a busy loop, in which the client waits at the listener all the
//! time.

use std::{io, os::unix::net::UnixListener, time::Duration};

use containerd_shim_protos::ttrpc::r#async::transport::Listener;
use futures_util::stream;
use tokio::{net::UnixStream, time::sleep};

/// How long clients wait at the listener after an error. Nothing reports that the limit was raised,
/// or that another process has closed a file.
const PAUSE: Duration = Duration::from_millis(200);

/// The connections to `listener`. Errors of accept(2) are passing: it is asked again after a pause.
pub(super) fn connections(listener: UnixListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    Ok(Listener::new(stream::unfold(
        listener,
        |listener| async move {
            let connection = accept(&listener).await;
            Some((Ok::<_, io::Error>(connection), listener))
        },
    )))
}

async fn accept(listener: &tokio::net::UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => return connection,
            Err(error) => {
                tracing::warn!(%error, "a client has to wait for its connection");
                sleep(PAUSE).await;
            }
        }
    }
}
