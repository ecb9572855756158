//! What every command works with.

use std::os::fd::OwnedFd;

use reaper_spec::Config;

use crate::{
    args::LogFormat, colours::Colours, host::ContainerEngine, proxy::Proxy, sockets::Sockets,
};

/// What every command works with.
pub(crate) struct CommandContext {
    pub(crate) containers: ContainerEngine,
    pub(crate) config: Config,
    /// Whether they are those of one containerd namespace, which the caller named.
    pub(crate) one_namespace: bool,
    /// The caller's descriptors from 3 on, as many as it named.
    pub(crate) preserved: Vec<OwnedFd>,
    /// The sockets among them.
    pub(crate) sockets: Sockets,
    /// The process that `--pid-file` names, of the commands that make a container.
    pub(crate) proxy: Option<Proxy>,
    /// How the caller wants to be told.
    pub(crate) log_format: LogFormat,
    /// Whether tables may have colours.
    pub(crate) colours: Colours,
}
