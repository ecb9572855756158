//! Figures in the form that containerd expects.

use containerd_shim_protos::{
    cgroups::metrics as v1,
    cgroups_v2::metrics as v2,
    protobuf::{MessageField, well_known_types::any::Any},
};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use reaper_exec::Stats;

use crate::{Error, Result, event::pack};

/// Which of containerd's two messages carries the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricsVersion {
    /// For nodes with the first version of cgroups, and hybrids.
    V1,
    /// For nodes with the second version alone.
    V2,
}

impl MetricsVersion {
    /// The form that containerd expects on this node: it decides by the same test.
    pub(crate) fn of_node() -> Self {
        let unified = statfs("/sys/fs/cgroup")
            .is_ok_and(|mounted| mounted.filesystem_type() == CGROUP2_SUPER_MAGIC);
        if unified { Self::V2 } else { Self::V1 }
    }

    /// Encodes figures.
    pub(crate) fn encode(self, stats: &Stats) -> Result<Any> {
        match self {
            Self::V1 => pack(&metrics_v1(stats)),
            Self::V2 => pack(&metrics_v2(stats)),
        }
        .map_err(|source| Error::Encode {
            message: "metrics",
            source,
        })
    }
}

fn metrics_v1(stats: &Stats) -> v1::Metrics {
    let usage = v1::CPUUsage {
        total: stats.cpu_user_ns.saturating_add(stats.cpu_system_ns),
        user: stats.cpu_user_ns,
        kernel: stats.cpu_system_ns,
        ..Default::default()
    };
    let memory = v1::MemoryStat {
        rss: stats.memory_anonymous_bytes,
        total_rss: stats.memory_anonymous_bytes,
        usage: MessageField::some(v1::MemoryEntry {
            usage: stats.memory_bytes,
            ..Default::default()
        }),
        ..Default::default()
    };
    v1::Metrics {
        pids: MessageField::some(v1::PidsStat {
            current: stats.processes,
            ..Default::default()
        }),
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(usage),
            ..Default::default()
        }),
        memory: MessageField::some(memory),
        ..Default::default()
    }
}

fn metrics_v2(stats: &Stats) -> v2::Metrics {
    let cpu = v2::CPUStat {
        usage_usec: stats.cpu_user_ns.saturating_add(stats.cpu_system_ns) / 1_000,
        user_usec: stats.cpu_user_ns / 1_000,
        system_usec: stats.cpu_system_ns / 1_000,
        ..Default::default()
    };
    let memory = v2::MemoryStat {
        anon: stats.memory_anonymous_bytes,
        usage: stats.memory_bytes,
        ..Default::default()
    };
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.processes,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory),
        ..Default::default()
    }
}
