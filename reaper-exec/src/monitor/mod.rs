//! The process that creates a container, waits for it, and serves its clients.
//!
//! There is one monitor for each container. It has one thread, since it forks. It is the parent of
//! the processes that it waits for, and a subreaper, so that orphans of the container become its
//! children. It outlives the program that started it and answers on a socket in the container's
//! folder.
//!
//! It is the starting program executed again. Such a program calls [`run_if_monitor`] at the start
//! of its `main`:
//!
//! ```no_run
//! use reaper_exec::{io::StandardBinder, monitor};
//! use reaper_overlay::HostFilesystem;
//!
//! fn main() {
//!     monitor::run_if_monitor(|| {
//!         monitor::MonitorConfig::new(HostFilesystem, StandardBinder::default())
//!     });
//!     // The program's own work.
//! }
//! ```

// The folders are floors: a file imports from its own folder and from lower floors.
//
//  5  serve                    the process: start, event loop, cleanup after a killed monitor
//  4  operations               requests and events, each an `impl Monitor` for one topic
//  3  container                the Monitor and the Backend, as data and contract
//  2  process   oci_runtime    one process; a runtime's command line
//  1  support                  states, connections, waiting, files: nothing of a container
mod container;
mod oci_runtime;
mod operations;
mod process;
mod serve;
mod support;

use std::{
    ffi::OsStr,
    sync::atomic::{AtomicBool, Ordering},
};

pub use self::support::config::MonitorConfig;
pub(crate) use self::support::config::{ARGUMENT, NAME};
#[cfg(feature = "fuzzing")]
pub(crate) use self::support::request::parse as parse_request;

/// Becomes a monitor, and never returns, if an executor has started this process as one. Returns at
/// once otherwise.
///
/// It must be called before a thread is started, since a monitor forks.
pub fn run_if_monitor(config: impl FnOnce() -> MonitorConfig) {
    if is_started_as_monitor() {
        serve::start::serve(config());
    }
    ASKED.store(true, Ordering::Relaxed);
}

/// Whether this program has called [`run_if_monitor`].
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether this program, executed again, becomes a monitor. One that does not would do its own work
/// once more in the monitor's place, and start itself without end.
pub(crate) fn becomes_monitor() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Whether an executor has started this process as a monitor.
pub(crate) fn is_started_as_monitor() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().as_deref() == Some(OsStr::new(ARGUMENT)) && arguments.next().is_none()
}
