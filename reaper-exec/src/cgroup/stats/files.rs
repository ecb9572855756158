//! The files of cgroups that account.

use std::{collections::BTreeMap, fs, path::Path};

use super::{CpuStats, IoStats, MemoryStats, PidsStats, UsageStats};

/// What version 1 says for no limit: the largest multiple of a page of at least 4 KiB.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// The folder of a cgroup.
#[derive(Clone, Copy)]
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    fn text(self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_default()
    }

    fn number(self, file: &str) -> Option<u64> {
        self.text(file).trim().parse().ok()
    }

    /// A limit: `None` for `max`, and for what version 1 says instead.
    fn limit(self, file: &str) -> Option<u64> {
        self.number(file).filter(|&limit| limit < V1_UNLIMITED)
    }

    fn keyed(self, file: &str) -> BTreeMap<String, u64> {
        keyed(&self.text(file))
    }
}

/// A flat keyed file.
pub(in super::super) fn keyed(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

pub(super) fn cpu_v1(account: Folder<'_>, quota: Option<Folder<'_>>) -> Option<CpuStats> {
    let usage_ns = account.number("cpuacct.usage")?;
    let stat = quota
        .map(|quota| quota.keyed("cpu.stat"))
        .unwrap_or_default();
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    let per_cpu = account.text("cpuacct.usage_percpu");
    Some(CpuStats {
        usage_ns,
        user_ns: account.number("cpuacct.usage_user").unwrap_or(0),
        system_ns: account.number("cpuacct.usage_sys").unwrap_or(0),
        per_cpu_ns: per_cpu
            .split_whitespace()
            .filter_map(|value| value.parse().ok())
            .collect(),
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_ns: of("throttled_time"),
    })
}

pub(super) fn cpu_v2(cgroup: Folder<'_>) -> Option<CpuStats> {
    let stat = cgroup.keyed("cpu.stat");
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    let nanoseconds = |key: &str| of(key).saturating_mul(1000);
    stat.get("usage_usec")?;
    Some(CpuStats {
        usage_ns: nanoseconds("usage_usec"),
        user_ns: nanoseconds("user_usec"),
        system_ns: nanoseconds("system_usec"),
        per_cpu_ns: Vec::new(),
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_ns: nanoseconds("throttled_usec"),
    })
}

fn usage_v1(cgroup: Folder<'_>, name: &str) -> Option<UsageStats> {
    Some(UsageStats {
        usage: cgroup.number(&format!("{name}usage_in_bytes"))?,
        peak: cgroup
            .number(&format!("{name}max_usage_in_bytes"))
            .unwrap_or(0),
        limit: cgroup.limit(&format!("{name}limit_in_bytes")),
        failures: cgroup.number(&format!("{name}failcnt")).unwrap_or(0),
    })
}

pub(super) fn memory_v1(cgroup: Folder<'_>) -> Option<MemoryStats> {
    Some(MemoryStats {
        memory: usage_v1(cgroup, "memory.")?,
        swap: usage_v1(cgroup, "memory.memsw."),
        kernel: usage_v1(cgroup, "memory.kmem."),
        stat: cgroup.keyed("memory.stat"),
        events: BTreeMap::new(),
        oom_kills: cgroup.keyed("memory.oom_control").get("oom_kill").copied(),
    })
}

pub(super) fn memory_v2(cgroup: Folder<'_>) -> Option<MemoryStats> {
    let events = cgroup.keyed("memory.events");
    let failures = |events: &BTreeMap<String, u64>| events.get("max").copied().unwrap_or(0);
    let swap = cgroup
        .number("memory.swap.current")
        .map(|usage| UsageStats {
            usage,
            peak: cgroup.number("memory.swap.peak").unwrap_or(0),
            limit: cgroup.limit("memory.swap.max"),
            failures: failures(&cgroup.keyed("memory.swap.events")),
        });
    Some(MemoryStats {
        memory: UsageStats {
            usage: cgroup.number("memory.current")?,
            peak: cgroup.number("memory.peak").unwrap_or(0),
            limit: cgroup.limit("memory.max"),
            failures: failures(&events),
        },
        swap,
        kernel: None,
        stat: cgroup.keyed("memory.stat"),
        oom_kills: events.get("oom_kill").copied(),
        events,
    })
}

pub(super) fn pids(cgroup: Folder<'_>) -> Option<PidsStats> {
    Some(PidsStats {
        current: cgroup.number("pids.current")?,
        limit: cgroup.limit("pids.max"),
    })
}

/// Of the whole subtree where the kernel has that.
pub(super) fn io_v1(cgroup: Folder<'_>) -> Vec<IoStats> {
    let mut found = BTreeMap::new();
    let names = [("io_service_bytes", true), ("io_serviced", false)];
    for (name, is_bytes) in names {
        let recursive = cgroup.text(&format!("blkio.throttle.{name}_recursive"));
        let text = match recursive.is_empty() {
            true => cgroup.text(&format!("blkio.throttle.{name}")),
            false => recursive,
        };
        for line in text.lines() {
            let mut words = line.split(' ');
            let Some(device) = words.next().and_then(device) else {
                continue;
            };
            let (kind, value) = (words.next(), words.next());
            let value = value.and_then(|value| value.parse().ok()).unwrap_or(0);
            let io: &mut IoStats = found.entry(device).or_insert_with(|| of_device(device));
            match (kind, is_bytes) {
                (Some("Read"), true) => io.read_bytes = value,
                (Some("Write"), true) => io.write_bytes = value,
                (Some("Read"), false) => io.reads = value,
                (Some("Write"), false) => io.writes = value,
                _ => {}
            }
        }
    }
    found.into_values().collect()
}

pub(super) fn io_v2(cgroup: Folder<'_>) -> Vec<IoStats> {
    let text = cgroup.text("io.stat");
    let line = |line: &str| {
        let mut words = line.split(' ');
        let mut io = of_device(words.next().and_then(device)?);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.write_bytes = value,
                "rios" => io.reads = value,
                "wios" => io.writes = value,
                _ => {}
            }
        }
        Some(io)
    };
    text.lines().filter_map(line).collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn of_device((major, minor): (u64, u64)) -> IoStats {
    IoStats {
        major,
        minor,
        ..IoStats::default()
    }
}

pub(super) fn hugetlb(cgroup: Folder<'_>) -> BTreeMap<String, UsageStats> {
    let names = fs::read_dir(cgroup.0).into_iter().flatten().flatten();
    let sizes = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let rest = name.strip_prefix("hugetlb.")?;
        let size = rest
            .strip_suffix(".usage_in_bytes")
            .or_else(|| rest.strip_suffix(".current"))?;
        // Those of reservations are not used yet.
        (!size.contains('.')).then(|| (size.to_owned(), name.ends_with(".current")))
    });
    sizes
        .filter_map(|(size, is_v2)| {
            let stats = match is_v2 {
                false => usage_v1(cgroup, &format!("hugetlb.{size}."))?,
                true => UsageStats {
                    usage: cgroup.number(&format!("hugetlb.{size}.current"))?,
                    peak: 0,
                    limit: cgroup.limit(&format!("hugetlb.{size}.max")),
                    failures: cgroup
                        .keyed(&format!("hugetlb.{size}.events"))
                        .get("max")
                        .copied()
                        .unwrap_or(0),
                },
            };
            Some((size, stats))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cgroup::{CgroupStats, Cgroups};

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        let path = dir.path().to_owned();
        (dir, path)
    }

    #[test]
    fn version_1_is_read() {
        let (_dir, path) = folder(&[
            ("cpuacct.usage", "30\n"),
            ("cpuacct.usage_user", "20\n"),
            ("cpuacct.usage_sys", "10\n"),
            ("cpuacct.usage_percpu", "12 18 \n"),
            (
                "cpu.stat",
                "nr_periods 5\nnr_throttled 2\nthrottled_time 7\n",
            ),
            ("memory.usage_in_bytes", "100\n"),
            ("memory.max_usage_in_bytes", "150\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.failcnt", "3\n"),
            (
                "memory.stat",
                "inactive_file 1\ntotal_inactive_file 40\ntotal_rss 50\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            ),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
            ),
            ("blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Write 2\n"),
            ("hugetlb.2MB.usage_in_bytes", "0\n"),
            ("hugetlb.2MB.limit_in_bytes", "2097152\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "0\n"),
        ]);
        let folder = Folder(&path);
        let cpu = cpu_v1(folder, Some(folder)).expect("cpu");
        assert_eq!((cpu.usage_ns, cpu.user_ns, cpu.system_ns), (30, 20, 10));
        assert_eq!(cpu.per_cpu_ns, [12, 18]);
        assert_eq!(
            (cpu.periods, cpu.throttled_periods, cpu.throttled_ns),
            (5, 2, 7)
        );
        let memory = memory_v1(folder).expect("memory");
        let UsageStats {
            usage,
            peak,
            limit,
            failures,
        } = memory.memory;
        assert_eq!((usage, peak, limit, failures), (100, 150, None, 3));
        assert_eq!((memory.inactive_file(), memory.oom_kills), (40, Some(4)));
        assert_eq!(memory.swap, None);
        let expected = PidsStats {
            current: 2,
            limit: None,
        };
        assert_eq!(pids(folder), Some(expected));
        let io = io_v1(folder);
        assert_eq!(io.len(), 1);
        assert_eq!((io[0].read_bytes, io[0].write_bytes), (10, 20));
        assert_eq!((io[0].reads, io[0].writes), (1, 2));
        let huge = hugetlb(folder);
        assert_eq!(huge.len(), 1, "{huge:?}");
        assert_eq!(huge["2MB"].limit, Some(2 << 20));
    }

    #[test]
    fn version_2_is_read() {
        let (_dir, path) = folder(&[
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\n\
                 throttled_usec 7\n",
            ),
            ("memory.current", "100\n"),
            ("memory.max", "200\n"),
            ("memory.stat", "anon 50\ninactive_file 40\n"),
            ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "max\n"),
            ("pids.current", "2\n"),
            ("pids.max", "20\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
            ),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.1GB.max", "max\n"),
        ]);
        let folder = Folder(&path);
        let cpu = cpu_v2(folder).expect("cpu");
        assert_eq!((cpu.usage_ns, cpu.throttled_ns), (30_000, 7000));
        let memory = memory_v2(folder).expect("memory");
        assert_eq!((memory.memory.usage, memory.memory.limit), (100, Some(200)));
        assert_eq!((memory.memory.failures, memory.oom_kills), (9, Some(1)));
        assert_eq!(memory.swap.as_ref().expect("swap").limit, None);
        assert_eq!(memory.inactive_file(), 40);
        assert_eq!(pids(folder).expect("pids").limit, Some(20));
        let io = io_v2(folder);
        assert_eq!((io[0].write_bytes, io[0].writes), (20, 2));
        assert_eq!(hugetlb(folder)["1GB"].limit, None);
    }

    #[test]
    fn figure_of_absent_controller_is_missing() {
        let (_dir, path) = folder(&[]);
        let folder = Folder(&path);
        assert_eq!(cpu_v1(folder, None), None);
        assert_eq!(cpu_v2(folder), None);
        assert_eq!((memory_v1(folder), memory_v2(folder)), (None, None));
        assert_eq!(pids(folder), None);
        assert!(io_v1(folder).is_empty() && hugetlb(folder).is_empty());
        assert_eq!(Cgroups::default().stats(), CgroupStats::default());
    }
}
