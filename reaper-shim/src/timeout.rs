//! What every request gets: an end, whatever happens.

use std::{any::Any, future::Future, time::Duration};

use tokio::{
    task::{JoinError, JoinHandle},
    time::timeout,
};

use crate::{Error, Result};

/// How long a request may take. containerd waits longer for none that it doesn't repeat.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long the executor may take to make or start something. Shorter than the request's limit,
/// so that there is time to undo what was begun.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(25);

/// Runs `work` to its end, also when the requester is gone: half a creation is worth nothing.
/// Answers for it after [`REQUEST_LIMIT`], and when it panics.
pub(crate) async fn bounded<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match timeout(REQUEST_LIMIT, tokio::spawn(work)).await {
        Ok(joined) => flatten(operation, joined),
        Err(_) => Err(Error::Timeout {
            operation,
            after: REQUEST_LIMIT,
        }),
    }
}

/// Runs `work` without a limit, and aborts it when the requester stops waiting.
pub(crate) async fn unbounded<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut task = AbortOnDrop(tokio::spawn(work));
    flatten(operation, (&mut task.0).await)
}

/// A step of a request, abandoned when it takes too long.
pub(crate) async fn with_timeout<T, E>(
    operation: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T>
where
    Error: From<E>,
{
    match timeout(STEP_LIMIT, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Timeout {
            operation,
            after: STEP_LIMIT,
        }),
    }
}

/// Runs what may wait for a disk on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn flatten<T>(
    operation: &'static str,
    joined: std::result::Result<Result<T>, JoinError>,
) -> Result<T> {
    joined.unwrap_or_else(|failed| {
        let message = match failed.try_into_panic() {
            Ok(panic) => panic_message(&*panic),
            Err(cancelled) => cancelled.to_string(),
        };
        tracing::error!(operation, message, "a request panicked");
        Err(Error::Panicked { operation, message })
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
