//! Figures in the form that containerd expects.

use containerd_shim_protos::{
    cgroups::metrics as v1,
    cgroups_v2::metrics as v2,
    protobuf::{MessageField, well_known_types::any::Any},
};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use reaper_exec::{
    Stats,
    cgroup::{CgroupStats, CpuStats, IoStats, MemoryStats, UsageStats},
};

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

/// The figures of the cgroups, completed by those of the processes where there is no controller.
struct Figures {
    /// Without CPU and memory, which are below.
    cgroups: CgroupStats,
    cpu: CpuStats,
    memory: MemoryStats,
    processes: u64,
}

impl Figures {
    fn of(stats: &Stats) -> Self {
        let mut cgroups = stats.cgroups.as_deref().cloned().unwrap_or_default();
        let cpu = cgroups.cpu.take().unwrap_or_else(|| {
            let mut cpu = CpuStats::default();
            cpu.usage_ns = stats.cpu_user_ns.saturating_add(stats.cpu_system_ns);
            cpu.user_ns = stats.cpu_user_ns;
            cpu.system_ns = stats.cpu_system_ns;
            cpu
        });
        let memory = cgroups.memory.take().unwrap_or_else(|| {
            let mut memory = MemoryStats::default();
            memory.memory.usage = stats.memory_bytes;
            let anonymous = ["rss", "total_rss", "anon"];
            memory.stat = anonymous
                .map(|name| (name.to_owned(), stats.memory_anonymous_bytes))
                .into();
            memory
        });
        Self {
            cpu,
            memory,
            processes: stats.processes,
            cgroups,
        }
    }

    /// Of processes and threads, as the controller counts them.
    fn pids(&self) -> (u64, u64) {
        let pids = self.cgroups.pids.as_ref();
        let limit = pids.and_then(|pids| pids.limit).unwrap_or(0);
        (pids.map_or(self.processes, |pids| pids.current), limit)
    }

    fn line(&self, name: &str) -> Option<u64> {
        self.memory.stat.get(name).copied()
    }

    fn stat(&self, name: &str) -> u64 {
        self.line(name).unwrap_or(0)
    }
}

/// The kernel's word for no limit, in version 1.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

fn entry(usage: &UsageStats) -> MessageField<v1::MemoryEntry> {
    MessageField::some(v1::MemoryEntry {
        limit: usage.limit.unwrap_or(V1_UNLIMITED),
        usage: usage.usage,
        max: usage.peak,
        failcnt: usage.failures,
        ..Default::default()
    })
}

fn metrics_v1(stats: &Stats) -> v1::Metrics {
    let figures = Figures::of(stats);
    let (current, limit) = figures.pids();
    let cpu = v1::CPUStat {
        usage: MessageField::some(v1::CPUUsage {
            total: figures.cpu.usage_ns,
            user: figures.cpu.user_ns,
            kernel: figures.cpu.system_ns,
            per_cpu: figures.cpu.per_cpu_ns.clone(),
            ..Default::default()
        }),
        throttling: MessageField::some(v1::Throttle {
            periods: figures.cpu.periods,
            throttled_periods: figures.cpu.throttled_periods,
            throttled_time: figures.cpu.throttled_ns,
            ..Default::default()
        }),
        ..Default::default()
    };
    let hugetlb = figures.cgroups.hugetlb.iter();
    let hugetlb = hugetlb.map(|(size, usage)| v1::HugetlbStat {
        usage: usage.usage,
        max: usage.peak,
        failcnt: usage.failures,
        pagesize: size.clone(),
        ..Default::default()
    });
    let oom_control = figures
        .memory
        .oom_kills
        .map(|oom_kill| v1::MemoryOomControl {
            oom_kill,
            ..Default::default()
        });
    v1::Metrics {
        pids: MessageField::some(v1::PidsStat {
            current,
            limit,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory_v1(&figures)),
        blkio: MessageField::some(block_io(&figures.cgroups)),
        hugetlb: hugetlb.collect(),
        memory_oom_control: oom_control.into(),
        ..Default::default()
    }
}

fn memory_v1(figures: &Figures) -> v1::MemoryStat {
    let stat = |name| figures.stat(name);
    let limit = |name| figures.line(name).unwrap_or(V1_UNLIMITED);
    v1::MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: limit("hierarchical_memory_limit"),
        hierarchical_swap_limit: limit("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        // What the kubelet takes off the usage. A hybrid may have memory in version 2.
        total_inactive_file: figures.memory.inactive_file(),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry(&figures.memory.memory),
        swap: figures.memory.swap.as_ref().map(entry).unwrap_or_default(),
        kernel: figures
            .memory
            .kernel
            .as_ref()
            .map(entry)
            .unwrap_or_default(),
        ..Default::default()
    }
}

fn block_io(cgroups: &CgroupStats) -> v1::BlkIOStat {
    let entries = |values: fn(&IoStats) -> [(&'static str, u64); 2]| {
        let of = |io: &IoStats| {
            let (major, minor) = (io.major, io.minor);
            values(io).map(|(op, value)| v1::BlkIOEntry {
                op: op.to_owned(),
                major,
                minor,
                value,
                ..Default::default()
            })
        };
        cgroups.io.iter().flat_map(of).collect()
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: entries(|io| {
            [("Read", io.read_bytes), ("Write", io.write_bytes)]
        }),
        io_serviced_recursive: entries(|io| [("Read", io.reads), ("Write", io.writes)]),
        ..Default::default()
    }
}

fn metrics_v2(stats: &Stats) -> v2::Metrics {
    let figures = Figures::of(stats);
    let (current, limit) = figures.pids();
    let cpu = v2::CPUStat {
        usage_usec: figures.cpu.usage_ns / 1_000,
        user_usec: figures.cpu.user_ns / 1_000,
        system_usec: figures.cpu.system_ns / 1_000,
        nr_periods: figures.cpu.periods,
        nr_throttled: figures.cpu.throttled_periods,
        throttled_usec: figures.cpu.throttled_ns / 1_000,
        ..Default::default()
    };
    let io = |io: &IoStats| v2::IOEntry {
        major: io.major,
        minor: io.minor,
        rbytes: io.read_bytes,
        wbytes: io.write_bytes,
        rios: io.reads,
        wios: io.writes,
        ..Default::default()
    };
    let hugetlb = figures.cgroups.hugetlb.iter();
    let hugetlb = hugetlb.map(|(size, usage)| v2::HugeTlbStat {
        current: usage.usage,
        max: usage.limit.unwrap_or(u64::MAX),
        failcnt: usage.failures,
        pagesize: size.clone(),
        ..Default::default()
    });
    let event = |name| figures.memory.events.get(name).copied().unwrap_or(0);
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current,
            limit,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory_v2(&figures)),
        io: MessageField::some(v2::IOStat {
            usage: figures.cgroups.io.iter().map(io).collect(),
            ..Default::default()
        }),
        hugetlb: hugetlb.collect(),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: event("low"),
            high: event("high"),
            max: event("max"),
            oom: event("oom"),
            oom_kill: event("oom_kill"),
            oom_group_kill: event("oom_group_kill"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory_v2(figures: &Figures) -> v2::MemoryStat {
    let stat = |name| figures.stat(name);
    let swap = figures.memory.swap.clone().unwrap_or_default();
    v2::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: figures.memory.inactive_file(),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: stat("workingset_refault"),
        workingset_activate: stat("workingset_activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: figures.memory.memory.usage,
        usage_limit: figures.memory.memory.limit.unwrap_or(u64::MAX),
        max_usage: figures.memory.memory.peak,
        swap_usage: swap.usage,
        swap_limit: swap.limit.unwrap_or(u64::MAX),
        swap_max_usage: swap.peak,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        let mut cgroups = CgroupStats::default();
        let mut cpu = CpuStats::default();
        (cpu.usage_ns, cpu.user_ns, cpu.system_ns) = (9000, 6000, 3000);
        (cpu.periods, cpu.throttled_periods, cpu.throttled_ns) = (5, 2, 7000);
        cgroups.cpu = Some(cpu);
        let mut memory = MemoryStats::default();
        (memory.memory.usage, memory.memory.limit) = (100, Some(200));
        memory.stat.insert("total_inactive_file".to_owned(), 40);
        memory.stat.insert("anon".to_owned(), 50);
        memory.oom_kills = Some(3);
        memory.events.insert("oom_kill".to_owned(), 3);
        cgroups.memory = Some(memory);
        Stats::default()
            .with_processes(4)
            .with_cgroups(Some(Box::new(cgroups)))
    }

    #[test]
    fn the_kubelets_working_set_and_throttling_are_in_both_messages() {
        let v1 = metrics_v1(&stats());
        assert_eq!(v1.cpu.usage.total, 9000);
        assert_eq!(v1.cpu.throttling.throttled_periods, 2);
        assert_eq!((v1.memory.usage.usage, v1.memory.usage.limit), (100, 200));
        assert_eq!(v1.memory.total_inactive_file, 40);
        assert_eq!(v1.memory_oom_control.oom_kill, 3);
        // Without a controller for pids the processes are counted.
        assert_eq!(v1.pids.current, 4);
        let v2 = metrics_v2(&stats());
        assert_eq!((v2.cpu.usage_usec, v2.cpu.throttled_usec), (9, 7));
        assert_eq!((v2.memory.usage, v2.memory.usage_limit), (100, 200));
        assert_eq!((v2.memory.inactive_file, v2.memory.anon), (40, 50));
        assert_eq!(v2.memory_events.oom_kill, 3);
    }

    #[test]
    fn without_cgroups_the_figures_are_those_of_the_processes() {
        let stats = Stats::default()
            .with_cpu_user_ns(6000)
            .with_cpu_system_ns(3000)
            .with_memory_bytes(100)
            .with_memory_anonymous_bytes(50)
            .with_processes(4);
        let v1 = metrics_v1(&stats);
        assert_eq!((v1.cpu.usage.total, v1.cpu.usage.kernel), (9000, 3000));
        assert_eq!((v1.memory.usage.usage, v1.memory.total_rss), (100, 50));
        let v2 = metrics_v2(&stats);
        assert_eq!(
            (v2.memory.usage, v2.memory.anon, v2.pids.current),
            (100, 50, 4)
        );
    }
}
