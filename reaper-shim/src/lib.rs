//! A containerd shim over anything that runs processes.
//!
//! It decides what containerd is answered and told, and in which order. It must not know how a
//! process is run: it forks no container, signals none and mounts nothing, all of which is behind
//! `Executor`.
//!
//! containerd starts containers through shims: programs that serve its task API, one per pod.
//! This crate is everything about a shim that has nothing to do with *how* a process is run. Give
//! it an [`Executor`](reaper_exec::Executor) and a [`StateStore`](reaper_state::StateStore), and
//! the `main` of a shim is one expression:
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//!
//! use reaper_shim::{Runtime, Shim};
//! use reaper_state::FileStore;
//! # fn my_executor() -> Arc<dyn reaper_exec::Executor> { unreachable!() }
//!
//! fn main() -> ExitCode {
//!     Shim::new("io.containerd.mine.v2", |context| {
//!         let store = FileStore::new(context.root.clone());
//!         Ok(Runtime::new(my_executor(), Arc::new(store)))
//!     })
//!     .run()
//! }
//! ```
//!
//! [A shim of your own](https://github.com/reaper-project/reaper/blob/main/docs/your-own-shim.md)
//! has the whole of one.
//!
//! * [`Shim`] is the program: containerd's command line, one daemon per pod and its socket,
//!   signals, logs, and the cleaning up when a daemon was killed. It serves containerd 1.6, 1.7
//!   and 2.x alike.
//! * [`TaskService`] is the task API alone, for programs with a server of their own.
//! * [`Publisher`] passes [`Event`]s on to containerd, in order, also when containerd is away for
//!   a while.
#![forbid(unsafe_code)]

mod bootstrap;
mod container;
mod error;
mod event;
mod process;
mod publisher;
mod registry;
mod sandbox;
mod service;
mod stats;
mod timeout;

/// The messages of containerd's API, and the ttrpc that serves it: what [`Event`]s and
/// [`TaskService`] are made of, re-exported so that consumers use the same version.
pub use containerd_shim_protos as protos;

pub use bootstrap::{Context, Runtime, Shim};
pub use error::{Error, Result};
pub use event::{Event, Events};
pub use publisher::Publisher;
pub use service::{Settings, TaskService};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
