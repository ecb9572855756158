//! What follows when a client disconnects.

use std::{collections::HashSet, os::fd::AsFd};

use crate::{
    monitor::{container::monitor::Monitor, support::states::ProcessState},
    procfs,
    signal::Signal,
    sys,
};

impl Monitor {
    /// Kills what the client of `connection` had asked for and has not been told of, and what is to
    /// end with it.
    pub(crate) fn client_disconnected(&mut self, connection: u64) {
        self.oom
            .waiters
            .retain(|(_, waiter)| waiter.connection != connection);
        let unstarted = self.options.kill_unless_started;
        let mut unwanted = Vec::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            process
                .waiters
                .retain(|waiter| waiter.connection != connection);
            let is_unwanted = match process.state {
                ProcessState::Creating { .. } => true,
                // No other client knows the exec's id, so none would ever start or delete it.
                ProcessState::Created => process.exec.is_some() || process.kill_on_disconnect,
                ProcessState::Starting(_) | ProcessState::Running => process.kill_on_disconnect,
                ProcessState::Stopped(_) | ProcessState::FailedToCreate => false,
            };
            let is_orphan = unstarted
                && process.creator == connection
                && matches!(process.state, ProcessState::Created);
            if is_orphan || (process.owner == connection && is_unwanted) {
                unwanted.push(index);
            }
        }
        let backend = self.backend;
        for index in unwanted {
            let process = &self.processes[index];
            match (&process.leaf, process.pid_number()) {
                // If the cgroup cannot be killed, the process itself is, below.
                (Some(leaf), _) if process.kill_on_disconnect => drop(leaf.kill()),
                (None, Some(pid)) if process.kill_on_disconnect => self.kill_descendants(pid),
                _ => {}
            }
            backend.kill_unwanted(self, index);
        }
    }

    /// Kills what `root` has started, where no cgroup of its own holds it. What is no longer its
    /// descendant, since a parent in between has exited, is missed: it lives until init exits.
    fn kill_descendants(&self, root: u32) {
        /// A process can fork between the look and the signal, so killing is repeated.
        const ROUNDS: usize = 64;
        let descendants = || self.tree(root).into_iter().filter(|&pid| pid != root);
        let mut killed = HashSet::new();
        for _ in 0..ROUNDS {
            let open = |pid| Some((pid, procfs::open_pidfd(&procfs::identify(pid).ok()?).ok()?));
            let new = descendants().filter(|pid| !killed.contains(pid));
            let opened: Vec<_> = new.filter_map(open).collect();
            if opened.is_empty() {
                break;
            }
            // A pid may have become another process's before it was opened. If it is a descendant
            // now, the descriptor is that of a descendant, or of a process that has exited.
            let still: HashSet<u32> = descendants().collect();
            for (pid, pidfd) in opened {
                killed.insert(pid);
                if still.contains(&pid) {
                    // It may have exited since.
                    let _ = sys::pidfd_send_signal(pidfd.as_fd(), Signal::KILL.number());
                }
            }
        }
    }
}
