//! What a monitor is made of, and by what a process knows that it is to be one.

use reaper_overlay::FilesystemIsolation;

use crate::io::IoBinder;

/// The only argument of a monitor. It is internal: only executors pass it.
pub(crate) const ARGUMENT: &str = "--reaper-monitor";

/// The name of a monitor in ps(1).
pub(crate) const NAME: &str = "reaper-monitor";

/// What a monitor is made of.
pub struct MonitorConfig {
    pub(crate) isolation: Box<dyn FilesystemIsolation>,
    pub(crate) binder: Box<dyn IoBinder>,
}

impl MonitorConfig {
    /// A monitor whose containers get their view of the filesystem from `isolation`, and their
    /// streams from `binder`.
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
