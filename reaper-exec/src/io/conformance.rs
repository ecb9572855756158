//! The contract of [`IoBinder`] as a suite that any binder can be run against.
//!
//! ```
//! use reaper_exec::io::{StandardBinder, conformance::{self, Subject}};
//!
//! # let folder = || tempfile::tempdir().unwrap();
//! conformance::run(|| {
//!     let folder = folder();
//!     Subject::new(StandardBinder::new(), folder.path()).keeping(folder)
//! });
//! ```
//!
//! The suite runs shell scripts with the streams, and serves them as a monitor does.
//!
//! Some rules are about what not every binder has, and check nothing on one that has it not: those about a
//! terminal, see [`Subject::without_terminals`], and those about a reader that comes late, which need an output
//! that is a FIFO.
//!
//! A rule that waits for longer than half a minute is broken: what has to come does not.
//! [`Subject::within`] sets another limit.

mod client;
mod driver;
mod rules;

use std::{
    any::Any,
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use reaper_spec::ConsoleSize;

pub use self::client::{Client, Output};
use self::driver::Process;
use super::contract::{IoBinder, IoError, StreamTarget};

/// How long the suite waits for anything; only a binder that breaks a rule makes it wait so long.
const LIMIT: Duration = Duration::from_secs(30);

/// A binder to be checked, and how clients come by what it binds.
pub struct Subject {
    binder: Box<dyn IoBinder>,
    folder: PathBuf,
    clients: AtomicU32,
    connect: fn(&Path) -> Client,
    terminals: bool,
    limit: Duration,
    // Dropped last: a temporary folder, say.
    _kept: Option<Box<dyn Any>>,
}

impl Subject {
    /// A binder of which each process gets FIFOs in `folder`.
    pub fn new(binder: impl IoBinder + 'static, folder: impl Into<PathBuf>) -> Self {
        Self {
            binder: Box::new(binder),
            folder: folder.into(),
            clients: AtomicU32::new(0),
            connect: Client::of_fifos,
            terminals: true,
            limit: LIMIT,
            _kept: None,
        }
    }

    /// Asks for other streams. `connect` gets a path of which nothing is there yet.
    #[must_use]
    pub fn connecting(mut self, connect: fn(&Path) -> Client) -> Self {
        self.connect = connect;
        self
    }

    /// The binder gives a terminal no such streams: the rules about terminals are left out.
    #[must_use]
    pub fn without_terminals(mut self) -> Self {
        self.terminals = false;
        self
    }

    /// Sets how long the suite waits for anything; half a minute by default.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Keeps `value`, what the streams are in, until the check is over.
    #[must_use]
    pub fn keeping(mut self, value: impl Any) -> Self {
        self._kept = Some(Box::new(value));
        self
    }

    fn client(&self) -> Client {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        (self.connect)(&self.folder.join(number.to_string()))
    }

    fn bind(&self, client: &mut Client) -> Process {
        self.try_bind(client).expect("bind")
    }

    fn try_bind(&self, client: &mut Client) -> Result<Process, IoError> {
        let stdio = std::mem::take(&mut client.stdio);
        Process::bind(&*self.binder, stdio, None, self.limit)
    }

    /// A process that has a terminal.
    fn bind_terminal(&self, client: &mut Client, size: ConsoleSize) -> Process {
        let stdio = std::mem::take(&mut client.stdio);
        let bound = Process::bind(&*self.binder, stdio, Some(size), self.limit);
        bound.expect("bind a terminal")
    }

    /// What is said of a target that no binder knows.
    fn refused(&self) -> IoError {
        let mut client = self.client();
        client.stdio.streams.stdout = StreamTarget::Uri("of-nobody".to_owned());
        match self.try_bind(&mut client) {
            Ok(_) => panic!("an unknown target was bound"),
            Err(error) => error,
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

reaper_spec::contract_rules! {
    Subject, rules:
    output_arrives_followed_by_end_of_file
    child_gets_blocking_close_on_exec_descriptors_once
    an_unknown_target_is_refused_by_its_name
    a_slow_reader_loses_nothing
    output_keeps_its_order
    closed_reader_does_not_fail_the_process
    a_missing_reader_blocks_nothing_and_a_late_one_gets_all
    an_input_outlives_its_clients_until_it_is_closed
    an_input_can_be_closed_before_the_start
    outputs_of_two_processes_stay_separate
    a_size_without_a_terminal_is_ignored
    a_terminal_has_the_size_that_it_was_given_last
    a_terminal_ends_with_its_process
    dropping_bound_streams_ends_clients_output
    dropped_streams_leave_no_descriptor_open
}
