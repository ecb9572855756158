//! The accounting of a container's cgroups.
//!
//! Of either version it is read into the same figures; the statistics of memory, of which there are
//! some forty with names of their own in each version, are passed on as they are.

mod files;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) use self::files::keyed;
use self::files::{Folder, cpu_v1, cpu_v2, hugetlb, io_v1, io_v2, memory_v1, memory_v2, pids};
use super::set::Cgroups;

/// The accounting of a container's cgroups. Each part is `None` where no hierarchy has a controller
/// for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CgroupStats {
    /// CPU time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Processes and threads.
    pub pids: Option<PidsStats>,
    /// Block devices.
    pub io: Vec<IoStats>,
    /// Huge pages, by their size.
    pub hugetlb: BTreeMap<String, UsageStats>,
}

/// CPU time over the cgroup's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CpuStats {
    /// In all, nanoseconds.
    pub usage_ns: u64,
    /// In user mode, nanoseconds.
    pub user_ns: u64,
    /// In the kernel, nanoseconds.
    pub system_ns: u64,
    /// Of each processor, nanoseconds; version 1 only.
    pub per_cpu_ns: Vec<u64>,
    /// The periods of a quota in which something ran.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// How long processes were held back, nanoseconds.
    pub throttled_ns: u64,
}

/// Something with a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct UsageStats {
    /// Now.
    pub usage: u64,
    /// The most there was.
    pub peak: u64,
    /// `None` without one.
    pub limit: Option<u64>,
    /// How often the limit was met.
    pub failures: u64,
}

/// Memory, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct MemoryStats {
    /// What is charged, the page cache included.
    pub memory: UsageStats,
    /// Version 1: memory and swap together; version 2: swap.
    pub swap: Option<UsageStats>,
    /// Memory of the kernel; version 1 only.
    pub kernel: Option<UsageStats>,
    /// The lines of `memory.stat`: names differ between the versions.
    pub stat: BTreeMap<String, u64>,
    /// The lines of `memory.events`; version 2 only.
    pub events: BTreeMap<String, u64>,
    /// How many processes the kernel has killed for lack of memory.
    pub oom_kills: Option<u64>,
}

impl MemoryStats {
    /// File pages that were not used lately: what the kubelet takes off the usage for its working
    /// set.
    pub fn inactive_file(&self) -> u64 {
        self.first_of(["total_inactive_file", "inactive_file"])
    }

    /// File pages, of the cgroups below too.
    pub fn cache(&self) -> u64 {
        self.first_of(["total_cache", "file"])
    }

    /// Pages that are no file's, of the cgroups below too.
    pub(crate) fn anonymous(&self) -> u64 {
        self.first_of(["total_rss", "anon"])
    }

    /// A line of `memory.stat`, which has one of these names; 0 without.
    fn first_of(&self, names: [&str; 2]) -> u64 {
        let mut found = names.iter().filter_map(|name| self.stat.get(*name));
        found.next().copied().unwrap_or(0)
    }
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// `None` without one.
    pub limit: Option<u64>,
}

/// A block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct IoStats {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

impl Cgroups {
    /// The accounting. A file that can't be read has no figures: which there are is up to the
    /// controllers.
    pub fn stats(&self) -> CgroupStats {
        let v2 = self.v2().map(|cgroup| Folder(cgroup.path()));
        let v1 = |controller: &str| {
            let cgroup = self.with_controller(controller)?;
            Some(Folder(cgroup.path()))
        };
        CgroupStats {
            cpu: match (v1("cpuacct"), v2) {
                (Some(account), _) => cpu_v1(account, v1("cpu")),
                (None, Some(v2)) => cpu_v2(v2),
                (None, None) => None,
            },
            memory: match (v1("memory"), v2) {
                (Some(v1), _) => memory_v1(v1),
                (None, Some(v2)) => memory_v2(v2),
                (None, None) => None,
            },
            pids: v1("pids").or(v2).and_then(pids),
            io: match (v1("blkio"), v2) {
                (Some(v1), _) => io_v1(v1),
                (None, Some(v2)) => io_v2(v2),
                (None, None) => Vec::new(),
            },
            hugetlb: v1("hugetlb").or(v2).map(hugetlb).unwrap_or_default(),
        }
    }
}
