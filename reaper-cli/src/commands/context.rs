//! What every command works with.

use std::{os::fd::OwnedFd, path::PathBuf};

use reaper_spec::Config;
use reaper_state::Record;

use crate::{
    args::LogFormat,
    colours::Colours,
    error::Result,
    host::{ContainerEngine, Open},
    sockets::Sockets,
};

/// Has a process stand for a container that was created, and returns its pid, for the pid file.
pub(crate) type StandIn = Box<dyn FnOnce(&Record) -> Result<u32>>;

/// What every command works with.
pub(crate) struct CommandContext {
    pub(crate) containers: ContainerEngine,
    /// Finds the containers of another root.
    pub(crate) open: Open,
    pub(crate) config: Config,
    /// The configuration file that the caller named.
    pub(crate) config_file: Option<PathBuf>,
    /// Whether they are those of one containerd namespace, which the caller named.
    pub(crate) one_namespace: bool,
    /// The caller's descriptors from 3 on, as many as it named.
    pub(crate) preserved: Vec<OwnedFd>,
    /// The sockets among them.
    pub(crate) sockets: Sockets,
    /// With `--pid-file`, of the commands that make a container.
    pub(crate) stand_in: Option<StandIn>,
    /// How the caller wants to be told.
    pub(crate) log_format: LogFormat,
    /// Whether tables may have colours.
    pub(crate) colours: Colours,
}
