//! Asynchronous clients for tests that are written straight down.

use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// How long anything may take before a test calls it hung.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at a condition of another process.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("start the harness's tokio runtime")
});

/// Runs a future to its end on the harness's runtime. Any thread may call it, but no task.
pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// Runs a call to its end, or panics with its name after [`LIMIT`].
pub fn within<F: Future>(what: &str, call: F) -> F::Output {
    block_on(async {
        match tokio::time::timeout(LIMIT, call).await {
            Ok(output) => output,
            Err(_) => panic!("{what}: no answer within {LIMIT:?}"),
        }
    })
}

/// Starts a task on the harness's runtime.
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    RUNTIME.spawn(future)
}

/// Waits until `condition` gives something, and panics with `what` after `limit`.
pub fn until_within<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// Waits until `condition` gives something, and panics with `what` after [`LIMIT`].
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_within(what, LIMIT, condition)
}
