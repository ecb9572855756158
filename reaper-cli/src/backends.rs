//! What `main` composes this program of.

use std::{os::fd::OwnedFd, sync::Arc};

use async_trait::async_trait;
use reaper_exec::{Engine, HostExecutor, Result as ExecutorResult};
use reaper_spec::{Config, ContainerId};
use reaper_state::RootDir;

use crate::{
    error::Result,
    host::{Containers, Host},
};

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

/// The containers below a root, with the store that the configuration names.
pub(crate) fn open(root: RootDir, config: &Config) -> Result<Containers> {
    let store = reaper_state::open(config.store, &root)?;
    let executor: Arc<dyn Host> = Arc::new(HostExecutor::new(root.clone()));
    Ok(Engine::new(executor, store, root))
}
