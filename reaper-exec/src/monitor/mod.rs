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

use std::ffi::OsStr;

pub use self::support::config::MonitorConfig;
pub(crate) use self::support::config::{ARGUMENT, NAME};

/// Becomes a monitor, and never returns, if an executor has started this process as one. Returns at
/// once otherwise.
///
/// It must be called before a thread is started, since a monitor forks.
pub fn run_if_monitor(config: impl FnOnce() -> MonitorConfig) {
    let mut arguments = std::env::args_os();
    let (Some(_), Some(argument), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return;
    };
    if argument == OsStr::new(ARGUMENT) {
        serve::start::serve(config());
    }
}
