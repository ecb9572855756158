//! The processes of the container, and the resources that they use.

use reaper_spec::ExecId;

use crate::{
    cgroup::{CgroupStats, Cgroups},
    executor::{ProcessInfo, Stats},
    monitor::container::monitor::Monitor,
    procfs,
};

impl Monitor {
    /// A process and its descendants, as far as they can be found without a cgroup.
    pub(crate) fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(&pid) = tree.get(next) {
            // A process that ended meanwhile has no children any more.
            tree.extend(procfs::children(pid).unwrap_or_default());
            next += 1;
        }
        tree
    }

    /// The processes in the cgroup. `None` without one, or if it cannot be read.
    pub(crate) fn pids_of_cgroup(&self) -> Option<Vec<ProcessInfo>> {
        if self.cgroups.is_empty() {
            return None;
        }
        let listed = self.cgroups.pids().ok()?;
        let entry = |(pid, leaf): (u32, String)| ProcessInfo::of_leaf(pid, &leaf);
        let mut listed: Vec<ProcessInfo> = listed.into_iter().map(entry).collect();
        if self.cgroups.v2().is_none() {
            // Version 1's cgroup does not tell execs apart.
            let known = self.pids_by_descent();
            for entry in &mut listed {
                let found = known.iter().find(|known| known.pid == entry.pid);
                entry.exec = found.and_then(|known| known.exec.clone());
            }
        }
        Some(listed)
    }

    /// The live processes that are known, and their descendants. Besides, without the exec that has
    /// started them, those whose parent has exited: the monitor, a subreaper, is their parent by then.
    pub(crate) fn pids_by_descent(&self) -> Vec<ProcessInfo> {
        let live = self.processes.iter().filter(|process| !process.has_ended());
        let live = live.filter_map(|process| Some((process.pid_number()?, process.exec.clone())));
        let mut roots: Vec<(u32, Option<ExecId>)> = live.collect();
        // A runtime may leave processes of its own, which are the monitor's children then.
        let mut orphans = match self.runtime {
            Some(_) => Vec::new(),
            None => self.remaining(),
        };
        orphans.retain(|orphan| roots.iter().all(|(root, _)| root != orphan));
        roots.extend(orphans.into_iter().map(|orphan| (orphan, None)));
        let trees = roots.into_iter().flat_map(|(root, exec)| {
            let tree = self.tree(root).into_iter();
            tree.map(move |pid| ProcessInfo {
                pid,
                exec: exec.clone(),
            })
        });
        trees.collect()
    }

    /// The cgroups that account for the container: those of the monitor, or those that a runtime has
    /// put its init process into.
    pub(crate) fn accounting_cgroups(&mut self) -> &Cgroups {
        if self.runtime.is_some()
            && self.runtime_cgroups.is_none()
            // Once it is reaped its number may be another's.
            && !self.processes[0].has_ended()
            && let Some(pid) = self.processes[0].pid_number()
        {
            // What cannot be read now is looked for again by the next request.
            self.runtime_cgroups = Cgroups::of_process(pid).ok();
        }
        self.runtime_cgroups.as_ref().unwrap_or(&self.cgroups)
    }

    pub(crate) fn stats(&mut self) -> Stats {
        let cgroups = self.accounting_cgroups();
        let cgroups = (!cgroups.is_empty()).then(|| cgroups.stats());
        // With both there is nothing that only the processes themselves know.
        let is_complete = |cgroups: &CgroupStats| {
            cgroups.cpu.is_some() && cgroups.memory.is_some() && cgroups.pids.is_some()
        };
        let mut stats = match cgroups.as_ref().is_some_and(is_complete) {
            true => Stats {
                processes: u64::try_from(self.count()).unwrap_or(0),
                ..Stats::default()
            },
            false => self.stats_of_processes(),
        };
        if let Some(cgroups) = cgroups {
            stats.set_cgroups(cgroups);
        }
        stats
    }

    /// How many processes there are.
    fn count(&self) -> usize {
        match self.cgroups.pids() {
            Ok(pids) if !self.cgroups.is_empty() => pids.len(),
            _ => self.backend.pids(self).len(),
        }
    }

    fn stats_of_processes(&mut self) -> Stats {
        let mut stats = Stats::default();
        // Those of all processes that were reaped, by the monitor or by a process that it reaped. A client of a
        // monitor that does not answer reads the same.
        let reaped = procfs::reaped_cpu(std::process::id());
        (stats.cpu_user_ns, stats.cpu_system_ns) = reaped.unwrap_or_default();
        for entry in self.backend.pids(self) {
            // A process that has exited since it was listed is in the sum above next time.
            let Ok(usage) = procfs::usage(entry.pid) else {
                continue;
            };
            stats.add(&usage);
        }
        // A process that exits between the two reads is in neither sum, nor are the children of one
        // that ignores SIGCHLD. Consumers take a falling counter for a restart, so the highest
        // values that were reported are kept.
        let (user, system) = &mut self.cpu_ns;
        *user = stats.cpu_user_ns.max(*user);
        *system = stats.cpu_system_ns.max(*system);
        (stats.cpu_user_ns, stats.cpu_system_ns) = (*user, *system);
        stats
    }
}
