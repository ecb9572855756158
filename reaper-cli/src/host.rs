//! What the command line needs of an executor beyond the contract.

use std::{os::fd::OwnedFd, sync::Arc};

use async_trait::async_trait;
use reaper_exec::{Engine, Executor, HostExecutor, Result as ExecutorResult};
use reaper_spec::{Config, ContainerId, StoreKind};
use reaper_state::{FileStore, RootDir, StateStore};

use crate::error::{Error, Result};

/// The containers of one state root, over any executor and any store.
pub(crate) type Containers = Engine<Arc<dyn Host>, dyn StateStore>;

/// An executor whose gated processes can get other streams when they start.
#[async_trait]
pub(crate) trait Host: Executor {
    /// As [`Executor::start`] for an init process, which gets these as its standard streams,
    /// unless it has a terminal.
    async fn start_with_streams(
        &self,
        id: &ContainerId,
        streams: [OwnedFd; 3],
    ) -> ExecutorResult<()>;
}

#[async_trait]
impl Host for HostExecutor {
    async fn start_with_streams(
        &self,
        id: &ContainerId,
        streams: [OwnedFd; 3],
    ) -> ExecutorResult<()> {
        Self::start_with_streams(self, id, streams).await
    }
}

/// The backends of this program.
pub(crate) fn open(root: RootDir, config: &Config) -> Result<Containers> {
    let store: Arc<dyn StateStore> = match config.store {
        StoreKind::File => Arc::new(FileStore::new(root.clone())),
        other => {
            return Err(Error::Option {
                option: "store",
                problem: format!("this program was built without the store {other:?}"),
            });
        }
    };
    let executor: Arc<dyn Host> = Arc::new(HostExecutor::new(root.clone()));
    Ok(Engine::new(executor, store, root))
}
