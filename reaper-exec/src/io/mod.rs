//! Where the streams of a process go.
//!
//! [`IoBinder`] is the contract: it runs in the monitor, turns a [`StdioRequest`] into the
//! descriptors that a process gets as its standard streams, and keeps, for as long as the monitor
//! lives, whatever must be held or pumped. [`StandardBinder`] is what containerd and the command
//! line need; [`CaptureBinder`] brings the output to the program that embeds the engine, see
//! [`Capture`], and [`JournalBinder`] to the node's journal, see [`Journal`].
//!
//! For tests of what uses a binder there are `FakeBinder` (feature `fake`) and `MockIoBinder`
//! (feature `mock`), and for other binders the contract as a suite in `conformance` (feature
//! `conformance`).

mod binder;
mod buffer;
mod capture;
#[cfg(feature = "conformance")]
pub mod conformance;
mod console;
mod contract;
#[cfg(feature = "fake")]
mod fake;
mod fifo;
mod file;
mod journal;
mod locate;
mod logger;
mod loggers;
mod none;
mod owner;
mod pty;
mod sink;
mod streams;
mod tapped;
mod terminal;
mod uri;

pub(crate) use self::none::NoStreams;
pub use self::{
    binder::StandardBinder,
    capture::{Capture, CaptureBinder, Captured, Chunk, OutputStream},
    contract::{
        BindRequest, BoundStdio, ChildStdio, IoBinder, IoError, StdioFds, StdioRequest,
        StreamTarget, Streams,
    },
    journal::{Journal, JournalBinder, Priority},
    logger::LoggerLimits,
};
pub use crate::sys::stdout_was_open;
#[cfg(feature = "mock")]
pub use contract::MockIoBinder;
#[cfg(feature = "fake")]
pub use fake::{FakeBinder, Seen as FakeSeen};
/// What [`BoundStdio`] waits for, re-exported so that implementations use the same version.
pub use nix::poll::PollFlags;
#[cfg(feature = "fuzzing")]
pub(crate) use uri::check as check_target;
