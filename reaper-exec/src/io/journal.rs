//! Output for the node's journal.
//!
//! A process's outputs are pipes that its monitor reads, and what comes through them it enters in
//! the journal, as systemd-cat(1) does: a line is an entry. The process is not given the socket
//! itself, for then it could not open its `/dev/stderr`, and would get a SIGPIPE where the journal
//! goes away.
//!
//! ```no_run
//! use reaper_exec::{
//!     io::{Journal, JournalBinder, Priority, StandardBinder, Streams},
//!     monitor,
//! };
//! use reaper_overlay::HostFilesystem;
//!
//! fn main() {
//!     let binder = || JournalBinder::with_fallback(StandardBinder::new());
//!     monitor::run_if_monitor(|| monitor::MonitorConfig::new(HostFilesystem, binder()));
//!     // What `journalctl --identifier backup` shows; lower than notice only what says so itself.
//!     let journal = Journal::new().identifier("backup");
//!     let streams = Streams::new()
//!         .with_stdout(journal.clone().priority(Priority::Notice).target())
//!         .with_stderr(journal.target());
//!     // The program's own work.
//! #   drop(streams);
//! }
//! ```

mod binder;
mod pump;
mod target;

use std::path::PathBuf;

pub use self::binder::JournalBinder;
use super::contract::StreamTarget;

/// How an output is entered in the journal.
///
/// As a [target](Self::target), and so in whatever stores or sends it, it is a URI:
/// `journald://[SOCKET][?identifier=NAME][&priority=PRIORITY][&level-prefix=no]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    socket: Option<PathBuf>,
    identifier: Option<String>,
    priority: Option<Priority>,
    level_prefix: bool,
}

/// How much an entry of the journal matters, as syslog(3) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The system is unusable.
    Emergency,
    /// To be acted upon at once.
    Alert,
    /// Critical conditions.
    Critical,
    /// Errors.
    Error,
    /// Warnings.
    Warning,
    /// Normal, but significant.
    Notice,
    /// Informational.
    Info,
    /// Of use for debugging.
    Debug,
}

impl Journal {
    /// The node's journal, with the container's id for an identifier. The priority of an output is
    /// [`Info`](Priority::Info), that of an error output [`Error`](Priority::Error), and a line
    /// that begins with `<0>` to `<7>` has that one.
    pub fn new() -> Self {
        Self {
            socket: None,
            identifier: None,
            priority: None,
            level_prefix: true,
        }
    }

    /// Uses the socket of another journal, such as `/run/systemd/journal.NAMESPACE/stdout` of a
    /// journal namespace, in place of `/run/systemd/journal/stdout`. An absolute path, in the
    /// monitor's view, shorter than 108 bytes.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Sets the entries' `SYSLOG_IDENTIFIER`, what `journalctl --identifier` looks for: 1 to 255
    /// bytes without control characters.
    #[must_use]
    pub fn identifier(mut self, name: impl Into<String>) -> Self {
        self.identifier = Some(name.into());
        self
    }

    /// Sets the priority of lines that have none of their own.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Whether a line may begin with a priority of its own, as sd-daemon(3) describes it.
    #[must_use]
    pub fn level_prefix(mut self, wanted: bool) -> Self {
        self.level_prefix = wanted;
        self
    }

    /// What a request says of the stream. Whether the settings are valid is found out by the
    /// [`JournalBinder`].
    pub fn target(&self) -> StreamTarget {
        StreamTarget::Uri(target::write(self))
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}
