//! Runs commands as processes of the host, each watched by a monitor that survives its starter.
//!
//! It decides how a process is created, started, watched, signalled and reaped, so that its exit is
//! not lost. It must not know who asks: neither containerd's API nor a command line, and of stores
//! and views no more than their contracts.
//!
//! [`Executor`] is the contract, [`HostExecutor`] its implementation on the host, and
//! [`OciExecutor`] the one that has an OCI runtime make real containers. [`IoBinder`]
//! decides where a process's streams go. [`Engine`] composes an executor with a
//! [`StateStore`](reaper_state::StateStore) into the lives of containers:
//!
//! ```
//! use std::sync::Arc;
//!
//! use reaper_exec::{Engine, HostExecutor, ContainerConfig, io::StandardBinder, monitor};
//! use reaper_overlay::HostFilesystem;
//! use reaper_spec::{ContainerId, Exit, ProcessSpec};
//! use reaper_state::{FileStore, StateRoot};
//!
//! /// Runs a command, and returns its exit.
//! async fn run(id: ContainerId, process: ProcessSpec) -> reaper_exec::engine::Result<Exit> {
//!     let root = StateRoot::new("/run/example");
//!     let store = Arc::new(FileStore::new(root.clone()));
//!     let engine = Engine::new(HostExecutor::new(root.clone()), store, root);
//!     engine.create(ContainerConfig::new(id.clone(), process)).await?;
//!     engine.start(&id).await?;
//!     let exit = engine.wait(&id).await?;
//!     engine.delete(&id, false).await?;
//!     Ok(exit)
//! }
//!
//! fn main() {
//!     // The program is its own monitor.
//!     monitor::run_if_monitor(|| {
//!         monitor::MonitorConfig::new(HostFilesystem, StandardBinder::default())
//!     });
//! }
//! ```
//!
//! A page with an example each: [an engine in your program][embedding], [an executor of your
//! own][executor], [streams of your own][streams].
//!
//! [embedding]: https://github.com/reaper-project/reaper/blob/main/docs/embedding.md
//! [executor]: https://github.com/reaper-project/reaper/blob/main/docs/your-own-executor.md
//! [streams]: https://github.com/reaper-project/reaper/blob/main/docs/your-own-streams.md
//!
//! # Floors
//!
//! A module imports from modules on lower floors only, and `lib.rs` re-exports. A test of the
//! workspace (`tests/src/floors`) keeps it so.
//!
//! | floor | modules | hold |
//! |---|---|---|
//! | 12 | `conformance`, `fake`, `fuzzing` | the contract as a suite, a scripted executor, what fuzz targets call; behind features |
//! | 11 | [`engine`], `oci` | an executor and a store together; the executor that drives a runtime |
//! | 10 | `host` | the executor that exchanges messages with monitors |
//! | 9 | [`monitor`] | the process that creates a container and waits for it; floors inside |
//! | 8 | `child`, `records` | a forked process until its `execve`; files in a container's folder |
//! | 7 | `protocol` | the messages between executor, monitor and child |
//! | 6 | `executor` | the contract: requests to an executor, answers |
//! | 5 | [`cgroup`], `hooks`, `namespaces` | control groups: processes, limits, accounting; programs that are run at steps of a container's life |
//! | 4 | [`io`], [`procfs`] | where streams go; what `/proc` has of processes |
//! | 3 | `before_exec` | what a command does in its child before its execve(2) |
//! | 2 | `descriptors`, `scheduling` | what this process has open, and how it is scheduled |
//! | 1 | `sys`, `channel`, `json`, `signal`, `seccomp` | system calls, messages with descriptors, documents with places, signal names, filters of calls |
//!
//! # Tests
//!
//! For tests of consumers there are `FakeExecutor` (feature `fake`) and `MockExecutor` (feature
//! `mock`), and for other executors the contract as a suite in `conformance` (feature
//! `conformance`).
#![deny(unsafe_code)]

mod before_exec;
pub mod cgroup;
mod channel;
mod child;
#[cfg(feature = "conformance")]
pub mod conformance;
mod descriptors;
pub mod engine;
mod executor;
#[cfg(feature = "fake")]
mod fake;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hooks;
mod host;
pub mod io;
mod json;
pub mod monitor;
mod namespaces;
mod oci;
pub mod procfs;
mod protocol;
mod records;
mod scheduling;
mod seccomp;
mod selinux;
mod signal;
mod sys;

pub use engine::Engine;
#[cfg(feature = "mock")]
pub use executor::MockExecutor;
pub use executor::{
    ContainerConfig, ContainerState, CreateRequest, CreatedProcess, Error, ExecRequest, Executor,
    Inherited, MonitorOptions, ProcessInfo, Result, Stats, Target,
};
#[cfg(feature = "fake")]
pub use fake::{Call as FakeCall, FakeExecutor};
pub use host::{HostExecutor, MonitorConnection};
pub use io::{BindRequest, BoundStdio, IoBinder};
pub use namespaces::set_network_parameters;
pub use oci::OciExecutor;
pub use signal::{ParseSignalError, Signal};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
