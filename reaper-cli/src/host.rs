//! What the command line needs of an executor beyond the contract.

use std::{os::fd::OwnedFd, sync::Arc};

use async_trait::async_trait;
use reaper_exec::{Engine, Executor, Result as ExecutorResult};
use reaper_spec::{Config, ContainerId};
use reaper_state::{StateRoot, StateStore};

use crate::error::Result;

/// The containers of one state root, over any executor and any store.
pub(crate) type ContainerEngine = Engine<Arc<dyn StdioExecutor>, dyn StateStore>;

/// Finds the containers below a root, as the configuration says.
pub(crate) type Open = fn(StateRoot, &Config) -> Result<ContainerEngine>;

/// An executor whose gated processes may get other streams when they start.
#[async_trait]
pub(crate) trait StdioExecutor: Executor {
    /// Whether they do: else a process has those of its creation.
    fn defers_streams(&self) -> bool;

    /// As [`Executor::start`] for an init process, which gets these as its standard streams,
    /// unless it has a terminal.
    async fn start_with_streams(
        &self,
        id: &ContainerId,
        streams: [OwnedFd; 3],
    ) -> ExecutorResult<()>;
}
