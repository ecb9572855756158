//! The process that stands between a container and everybody else.
//!
//! There is one monitor for each container: single threaded, the parent of what it waits for, and
//! a subreaper, so that whatever the container starts becomes its child in the end. It outlives
//! the program that started it and answers on a socket in the container's folder.
//!
//! It is the starting program executed again. Such a program calls [`run_if_asked`] first thing in
//! its `main`:
//!
//! ```no_run
//! use reaper_exec::{io::StandardBinder, monitor};
//! use reaper_overlay::HostRoot;
//!
//! fn main() {
//!     monitor::run_if_asked(|| monitor::Setup::new(HostRoot, StandardBinder::default()));
//!     // The program's own work.
//! }
//! ```

mod container;
mod oci_runtime;
mod operations;
mod process;
mod serve;
mod support;

use std::ffi::OsStr;

pub use self::support::setup::Setup;
pub(crate) use self::support::setup::{ARGUMENT, NAME};

/// Becomes a monitor, and never returns, if this process was started as one by an executor;
/// otherwise returns at once.
///
/// It must be called before anything that starts a thread: a monitor forks.
pub fn run_if_asked(setup: impl FnOnce() -> Setup) {
    let mut arguments = std::env::args_os();
    let (Some(_), Some(argument), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return;
    };
    if argument == OsStr::new(ARGUMENT) {
        serve::start::serve(setup());
    }
}
