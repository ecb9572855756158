//! What a service has, and whether any of it still runs.

use reaper_exec::Executor;
use reaper_state::StateStore;

use super::TaskService;

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> TaskService<E, S> {
    /// Writes the containers and their processes to the log.
    pub fn log_containers(&self) {
        let containers = self.inner.registry.containers();
        tracing::warn!(count = containers.len(), "asked for the shim's containers");
        for container in containers {
            for process in container.processes() {
                tracing::warn!(
                    process = %process.target,
                    pid = process.pid(),
                    status = %process.status(),
                    bundle = container.bundle,
                    "has"
                );
            }
        }
    }

    /// Waits until no container has a process any more. Sandboxes have none.
    pub async fn all_ended(&self) {
        loop {
            let containers = self.inner.registry.containers();
            let mut alive = containers
                .iter()
                .filter(|container| !container.sandbox && container.init.exit().is_none());
            match alive.next() {
                Some(container) => drop(container.init.wait().await),
                None => return,
            }
        }
    }
}
