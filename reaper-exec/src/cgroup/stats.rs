//! The accounting of a cgroup.

use std::{fs, path::Path};

/// The accounting of a cgroup. Each figure is `None` where the hierarchy has no
/// controller for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// CPU time in all, nanoseconds, over the cgroup's life.
    pub cpu_ns: Option<u64>,
    /// CPU time in user mode, nanoseconds, over the cgroup's life.
    pub cpu_user_ns: Option<u64>,
    /// CPU time in the kernel, nanoseconds, over the cgroup's life.
    pub cpu_system_ns: Option<u64>,
    /// Memory charged to it, bytes, page cache included.
    pub memory_bytes: Option<u64>,
    /// The anonymous part of it, bytes.
    pub memory_anonymous_bytes: Option<u64>,
    /// File pages of it that were not used lately, bytes.
    pub memory_inactive_file_bytes: Option<u64>,
    /// Threads.
    pub tasks: Option<u64>,
    /// How many processes of it were killed for lack of memory.
    pub oom_kills: Option<u64>,
}

impl CgroupStats {
    /// A file that can't be read has no figures: which there are is up to the controllers.
    pub(super) fn read(cgroup: &Path) -> Self {
        let read = |name| fs::read_to_string(cgroup.join(name)).unwrap_or_default();
        let (cpu, memory, events) = (read("cpu.stat"), read("memory.stat"), read("memory.events"));
        let nanoseconds = |key| value(&cpu, key).map(|micros| micros.saturating_mul(1000));
        Self {
            cpu_ns: nanoseconds("usage_usec"),
            cpu_user_ns: nanoseconds("user_usec"),
            cpu_system_ns: nanoseconds("system_usec"),
            memory_bytes: read("memory.current").trim().parse().ok(),
            memory_anonymous_bytes: value(&memory, "anon"),
            memory_inactive_file_bytes: value(&memory, "inactive_file"),
            tasks: read("pids.current").trim().parse().ok(),
            oom_kills: value(&events, "oom_kill"),
        }
    }
}

/// The value of a key in a flat keyed file.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(name, value)| (name == key).then(|| value.trim().parse().ok())?)
}
