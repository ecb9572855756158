//! What follows when a client disconnects.

use crate::monitor::{container::monitor::Monitor, support::states::ProcessState};

impl Monitor {
    /// Kills what the client of `connection` had asked for and has not been told of, and what is to
    /// end with it.
    pub(crate) fn client_disconnected(&mut self, connection: u64) {
        let mut unwanted = Vec::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            process
                .waiters
                .retain(|waiter| waiter.connection != connection);
            let is_unwanted = match process.state {
                ProcessState::Creating { .. } => true,
                // No other client knows the exec's id, so none would ever start or delete it.
                ProcessState::Created => process.exec.is_some(),
                ProcessState::Starting(_) | ProcessState::Running => process.kill_on_disconnect,
                ProcessState::Stopped(_) | ProcessState::FailedToCreate => false,
            };
            if process.owner == connection && is_unwanted {
                unwanted.push(index);
            }
        }
        let backend = self.backend;
        for index in unwanted {
            let process = &self.processes[index];
            if let (true, Some(leaf)) = (process.kill_on_disconnect, &process.leaf) {
                // If the cgroup cannot be killed, the process itself is, below.
                let _ = leaf.kill();
            }
            backend.kill_unwanted(self, index);
        }
    }
}
