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
//! use reaper_overlay::HostFilesystem;
//!
//! fn main() {
//!     monitor::run_if_asked(|| monitor::Setup::new(HostFilesystem, StandardBinder::default()));
//!     // The program's own work.
//! }
//! ```

mod birth;
mod bury;
mod calls;
mod connection;
mod end;
mod figures;
mod freeze;
mod gates;
mod housekeeping;
mod plan;
mod process;
mod reap;
mod runtime;
mod server;
mod turn;

use std::ffi::OsStr;

use reaper_overlay::FilesystemIsolation;

use crate::io::IoBinder;

/// The only argument of a monitor. It is no interface for people.
pub(crate) const ARGUMENT: &str = "--reaper-monitor";

/// The name of a monitor in ps(1).
pub(crate) const NAME: &str = "reaper-monitor";

/// What a monitor is made of.
pub struct Setup {
    isolation: Box<dyn FilesystemIsolation>,
    binder: Box<dyn IoBinder>,
}

impl Setup {
    /// A monitor whose containers see what `isolation` shows them, and whose streams `binder`
    /// opens.
    pub fn new(
        isolation: impl FilesystemIsolation + 'static,
        binder: impl IoBinder + 'static,
    ) -> Self {
        Self {
            isolation: Box::new(isolation),
            binder: Box::new(binder),
        }
    }
}

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
        server::serve(setup());
    }
}
