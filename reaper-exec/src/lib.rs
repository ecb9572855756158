//! Runs commands as processes of the host, each watched by a monitor that survives its starter.
//!
//! [`Executor`] is the contract, [`HostExecutor`] its implementation on the host. [`IoBinder`]
//! decides where a process's streams go. [`Engine`] composes an executor with a
//! [`StateStore`](reaper_state::StateStore) into the lives of containers.
#![deny(unsafe_code)]

pub mod cgroup;
mod channel;
mod child;
pub mod engine;
mod executor;
mod host;
pub mod io;
pub mod monitor;
pub mod procfs;
mod protocol;
mod records;
mod signal;
mod sys;

pub use engine::{Engine, NewContainer};
pub use executor::{
    CreateRequest, Created, Error, ExecRequest, Executor, MonitorOptions, Observation,
    ProcessEntry, Result, Stats, Target,
};
pub use host::HostExecutor;
pub use io::{BindRequest, BoundStdio, IoBinder};
pub use signal::{ParseSignalError, Signal};
