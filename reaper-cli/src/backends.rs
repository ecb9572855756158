//! What `main` composes this program of.

use std::{os::fd::OwnedFd, sync::Arc};

use async_trait::async_trait;
use reaper_exec::{Engine, Executor, HostExecutor, OciExecutor, Result as ExecutorResult, Target};
use reaper_spec::{Config, ContainerId};
use reaper_state::StateRoot;

use crate::{
    error::Result,
    host::{ContainerEngine, StdioExecutor},
};

#[async_trait]
impl StdioExecutor for HostExecutor {
    fn defers_streams(&self) -> bool {
        true
    }

    async fn start_with_streams(
        &self,
        id: &ContainerId,
        streams: [OwnedFd; 3],
    ) -> ExecutorResult<()> {
        Self::start_with_streams(self, id, streams).await
    }
}

/// The containers below a root, with the store that the configuration names.
pub(crate) fn open(root: StateRoot, config: &Config) -> Result<ContainerEngine> {
    let store = reaper_state::open(config.store, &root)?;
    let host = HostExecutor::new(root.clone());
    let executor: Arc<dyn StdioExecutor> = match &config.runtime_path {
        Some(runtime) => Arc::new(OciExecutor::new(host, runtime)),
        None => Arc::new(host),
    };
    Ok(Engine::new(executor, store, root))
}

#[async_trait]
impl StdioExecutor for OciExecutor {
    fn defers_streams(&self) -> bool {
        false
    }

    async fn start_with_streams(
        &self,
        id: &ContainerId,
        _streams: [OwnedFd; 3],
    ) -> ExecutorResult<()> {
        self.start(&Target::Init(id.clone())).await.map(drop)
    }
}
