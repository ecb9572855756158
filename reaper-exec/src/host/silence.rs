//! Monitors that do not answer: how long that is waited for, and what can be done without them.
//!
//! A monitor has one thread that never waits, so it answers within milliseconds unless it is
//! stopped, gets no CPU time, or hangs in a system call. A request that has no answer after a while
//! is followed by a second one, for the state, which every monitor answers at once: if that has no
//! answer either, the monitor is unresponsive. What a client may do then needs only what the
//! monitor has recorded in `plan.json`: the cgroup and its own identity.

use std::time::Duration;

use reaper_spec::ContainerId;
use tokio::time::{sleep, timeout};

use super::{HostExecutor, client::MonitorClient};
use crate::{
    executor::{ContainerState, Error, ProcessInfo, Result, Stats, Target},
    procfs,
    protocol::{CleanupRecord, Request},
};

/// How long a monitor may take before it is looked at, and to answer a request that changes
/// nothing: containerd waits two seconds for the figures of all containers of the node.
pub(super) const QUERY: Duration = Duration::from_secs(1);

/// How long it may take to answer a request that changes something.
pub(super) const ACTION: Duration = Duration::from_secs(10);

/// How long it may take to answer SIGKILL: it is done without the monitor then, and all that is lost
/// is how the process has ended.
pub(super) const KILL: Duration = Duration::from_secs(3);

/// How long one may take that did not answer the last time.
const AGAIN: Duration = Duration::from_millis(50);

impl HostExecutor {
    /// Returns when the monitor has not answered for `patience`. Never returns while it answers.
    pub(super) async fn silence(
        &self,
        id: &ContainerId,
        client: &MonitorClient,
        patience: Duration,
    ) {
        of(client, patience, || self.is_stopped(id)).await;
    }

    fn is_stopped(&self, id: &ContainerId) -> bool {
        matches!(self.plan(id), Ok(Some(plan)) if procfs::is_stopped(&plan.monitor))
    }

    /// The error of a request to a monitor that does not answer.
    pub(super) fn unresponsive(&self, target: &Target) -> Error {
        let plan = self.plan(target.container()).ok().flatten();
        Error::Unresponsive {
            target: target.clone(),
            monitor: plan.map_or(0, |plan| plan.monitor.pid),
        }
    }

    /// Kills a process whose monitor does not answer, with all that it has started. For init the
    /// monitor is ended as well, and the exit recorded.
    pub(super) async fn kill_unanswered(&self, target: &Target) -> Result<()> {
        let id = target.container();
        let Some(exec) = target.exec_id() else {
            self.end_monitor(id, false).await?;
            return Ok(());
        };
        let plan = self.plan(id)?.ok_or(Error::NotFound(target.clone()))?;
        let Some(cgroup) = plan.cgroups.v2() else {
            return Err(self.unresponsive(target));
        };
        let leaf = cgroup.leaf(&format!("exec-{exec}"));
        leaf.kill().map_err(|error| Error::Setup {
            step: format!("kill {target}"),
            message: error.to_string(),
            errno: None,
        })
    }

    /// Ends the monitor of a container, which does not answer, and what is left of the container.
    /// With `remove` all that is kept of it is removed.
    ///
    /// A process in an uninterruptible sleep is named and left: it ends when the kernel lets it.
    pub(super) async fn end_monitor(
        &self,
        id: &ContainerId,
        remove: bool,
    ) -> Result<ContainerState> {
        let plan = self.plan(id)?;
        let ended = self.clean_up(id, remove, true).await?;
        self.clients().remove(id);
        if let Some(plan) = plan {
            let left = left_of(&plan);
            if !left.is_empty() {
                let left = left.join(", ");
                tracing::warn!(%id, "processes that cannot be killed now are left: {left}");
            }
        }
        Ok(ended)
    }

    /// The processes of a container, as its cgroup says, or else as descendants of the monitor.
    pub(super) fn pids_unanswered(&self, target: &Target) -> Result<Vec<ProcessInfo>> {
        let plan = self.plan(target.container())?;
        let plan = plan.ok_or_else(|| Error::NotFound(target.clone()))?;
        if !plan.cgroups.is_empty()
            && let Ok(listed) = plan.cgroups.pids()
        {
            let entry = |(pid, leaf): (u32, String)| ProcessInfo::of_leaf(pid, &leaf);
            return Ok(listed.into_iter().map(entry).collect());
        }
        let mut tree = procfs::children(plan.monitor.pid).unwrap_or_default();
        let mut next = 0;
        while let Some(&pid) = tree.get(next) {
            tree.extend(procfs::children(pid).unwrap_or_default());
            next += 1;
        }
        let entry = |pid| ProcessInfo { pid, exec: None };
        Ok(tree.into_iter().map(entry).collect())
    }

    /// What the processes of a container use. Those that have exited are counted with the monitor,
    /// which has waited for them.
    pub(super) fn stats_unanswered(&self, target: &Target) -> Result<Stats> {
        let mut stats = Stats::default();
        for entry in self.pids_unanswered(target)? {
            // One that has exited meanwhile is a zombie of the monitor, with no memory.
            if let Ok(usage) = procfs::usage(entry.pid) {
                stats.add(&usage);
            }
        }
        let plan = self.plan(target.container())?;
        if let Some(plan) = &plan
            && let Ok((user, system)) = procfs::reaped_cpu(plan.monitor.pid)
        {
            stats.cpu_user_ns += user;
            stats.cpu_system_ns += system;
        }
        if let Some(plan) = plan
            && !plan.cgroups.is_empty()
        {
            stats.set_cgroups(plan.cgroups.stats());
        }
        Ok(stats)
    }
}

/// Returns when a monitor, which `is_stopped` looks at, has not answered for `patience`. Never returns
/// while it answers.
pub(super) async fn of(client: &MonitorClient, patience: Duration, is_stopped: impl Fn() -> bool) {
    loop {
        let first = if client.is_silent() { AGAIN } else { QUERY };
        sleep(first).await;
        if patience <= QUERY || is_stopped() {
            break;
        }
        // The end of the connection ends the request that this is about, too.
        let probe = client.call(&Request::State, &[]);
        if timeout(patience.saturating_sub(first), probe)
            .await
            .is_err()
        {
            break;
        }
    }
    client.note_silence();
}

/// The processes of a container that was killed which are there nevertheless.
fn left_of(plan: &CleanupRecord) -> Vec<String> {
    let pids = plan.cgroups.pids().unwrap_or_default();
    let mut left: Vec<u32> = pids.into_iter().map(|(pid, _)| pid).collect();
    if procfs::is_alive(&plan.monitor) {
        left.push(plan.monitor.pid);
    }
    left.into_iter().map(procfs::describe).collect()
}
