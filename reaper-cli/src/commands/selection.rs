//! Which containers a command is about.

use reaper_exec::engine::Error as EngineError;
use reaper_spec::{ContainerId, Status};
use reaper_state::Error as StoreError;

use crate::{error::Result, host::ContainerEngine};

/// The containers that have stopped. One that cannot be read is not touched.
pub(super) async fn stopped(containers: &ContainerEngine) -> Result<Vec<ContainerId>> {
    let mut found = Vec::new();
    for id in containers.list().await? {
        match containers.state(&id).await {
            Ok(record) if record.status == Status::Stopped => found.push(id),
            Ok(_) | Err(EngineError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => tracing::warn!("container {id}: {error}"),
        }
    }
    Ok(found)
}
