//! The table: what each limit of the spec is in files of cgroups.
//!
//! A row has the files of both versions of its controller. Within a row the order of the writes is
//! the one in which new cgroups take them; what is refused is tried again after the others, since a
//! quota and its period, or memory and swap, can be too large or too small for one another only on
//! the way.

use reaper_spec::{BlockIoResources, CpuResources, MemoryResources, Resources, ThrottleDevice};

use super::convert::{io_weight_of_blkio, swap_alone, weight_of_shares};

/// Something to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// Files and what to write to them: the first that exists gets it.
    pub(super) choices: Vec<(String, String)>,
    /// Whether there may be none: what is wanted is so without it.
    pub(super) optional: bool,
}

impl Write {
    fn or(mut self, file: impl Into<String>, value: impl ToString) -> Self {
        self.choices.push((file.into(), value.to_string()));
        self
    }

    fn optional_if(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }
}

fn set(file: impl Into<String>, value: impl ToString) -> Write {
    Write {
        choices: vec![(file.into(), value.to_string())],
        optional: false,
    }
}

/// What to write, or why the value makes no sense.
pub(super) type Writes = Result<Vec<Write>, String>;

/// The files of a setting in one version of cgroups.
pub(super) struct Files {
    pub(super) controller: &'static str,
    pub(super) writes: fn(&Resources) -> Writes,
}

/// A setting.
pub(super) struct Setting {
    /// Its place below `linux.resources`.
    pub(super) name: &'static str,
    /// Whether the spec asks for something that is not so without it. What engines write into each
    /// spec does not count, nor does "no limit".
    pub(super) is_asked: fn(&Resources) -> bool,
    pub(super) v1: Option<Files>,
    pub(super) v2: Option<Files>,
}

macro_rules! table {
    ($($name:literal if $asked:expr;
        v1 $v1:tt, v2 $v2:tt;)*) => {
        pub(super) const TABLE: &[Setting] = &[$(Setting {
            name: $name,
            is_asked: $asked,
            v1: table!(@ $v1),
            v2: table!(@ $v2),
        },)*];
    };
    (@ ($controller:literal, $writes:expr)) => {
        Some(Files { controller: $controller, writes: $writes })
    };
    (@ none) => { None };
}

table! {
    "cpu.idle" if |r| r.cpu.idle.is_some_and(|idle| idle != 0);
        v1 ("cpu", idle), v2 ("cpu", idle);
    // 2 is what the kubelet writes for no request, 1024 what ctr writes, and the kernel's default.
    "cpu.shares" if |r| r.cpu.shares.is_some_and(|shares| shares > 2 && shares != 1024);
        v1 ("cpu", |r| Ok(one("cpu.shares", shares(&r.cpu)))),
        v2 ("cpu", |r| Ok(one("cpu.weight", shares(&r.cpu).map(weight_of_shares))));
    "cpu.quota" if |r| r.cpu.quota.is_some_and(|quota| quota > 0) || given(r.cpu.burst).is_some();
        v1 ("cpu", |r| Ok(quota_v1(&r.cpu))), v2 ("cpu", |r| Ok(quota_v2(&r.cpu)));
    "cpu.realtimeRuntime" if |r| given(r.cpu.realtime_runtime).is_some() || given(r.cpu.realtime_period).is_some();
        v1 ("cpu", |r| Ok(realtime(&r.cpu))), v2 none;
    "cpu.cpus" if |r| named(r.cpu.cpus.as_ref()).is_some();
        v1 ("cpuset", |r| Ok(one("cpuset.cpus", named(r.cpu.cpus.as_ref())))),
        v2 ("cpuset", |r| Ok(one("cpuset.cpus", named(r.cpu.cpus.as_ref()))));
    "cpu.mems" if |r| named(r.cpu.mems.as_ref()).is_some();
        v1 ("cpuset", |r| Ok(one("cpuset.mems", named(r.cpu.mems.as_ref())))),
        v2 ("cpuset", |r| Ok(one("cpuset.mems", named(r.cpu.mems.as_ref()))));
    "memory.limit" if |r| limited(r.memory.limit) || limited(r.memory.swap);
        v1 ("memory", |r| memory_v1(&r.memory)), v2 ("memory", |r| memory_v2(&r.memory));
    "memory.reservation" if |r| limited(r.memory.reservation);
        v1 ("memory", |r| Ok(one("memory.soft_limit_in_bytes", given(r.memory.reservation)))),
        v2 ("memory", |r| Ok(one("memory.low", given(r.memory.reservation).map(max))));
    "memory.swappiness" if |r| r.memory.swappiness.is_some();
        v1 ("memory", |r| Ok(one("memory.swappiness", r.memory.swappiness))),
        v2 none;
    "memory.disableOOMKiller" if |r| r.memory.disable_oom_killer == Some(true);
        v1 ("memory", |r| Ok(r.memory.disable_oom_killer.map(|value| set("memory.oom_control", u8::from(value)).optional_if(!value)).into_iter().collect())),
        v2 none;
    "memory.kernelTCP" if |r| limited(r.memory.kernel_tcp);
        v1 ("memory", |r| Ok(one("memory.kmem.tcp.limit_in_bytes", given(r.memory.kernel_tcp)))),
        v2 none;
    "pids.limit" if |r| r.pids.limit.is_some_and(|limit| limit > 0);
        v1 ("pids", |r| Ok(one("pids.max", given(r.pids.limit).map(max)))),
        v2 ("pids", |r| Ok(one("pids.max", given(r.pids.limit).map(max))));
    "blockIO" if |r| r.block_io != BlockIoResources::default();
        v1 ("blkio", |r| Ok(block_io_v1(&r.block_io))), v2 ("io", |r| block_io_v2(&r.block_io));
    "hugepageLimits" if |r| !r.hugepage_limits.is_empty();
        v1 ("hugetlb", |r| Ok(hugepages(r, "limit_in_bytes"))), v2 ("hugetlb", |r| Ok(hugepages(r, "max")));
    "rdma" if |r| !r.rdma.is_empty();
        v1 ("rdma", |r| Ok(rdma(r))), v2 ("rdma", |r| Ok(rdma(r)));
    "network.classID" if |r| given(r.network.class_id).is_some();
        v1 ("net_cls", |r| Ok(one("net_cls.classid", given(r.network.class_id)))),
        v2 none;
    "network.priorities" if |r| !r.network.priorities.is_empty();
        v1 ("net_prio", |r| Ok(priorities(r))), v2 none;
}

/// 0 is the same as absent, as Go writes it.
fn given<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn named(value: Option<&String>) -> Option<&String> {
    value.filter(|value| !value.is_empty())
}

fn limited(bytes: Option<i64>) -> bool {
    bytes.is_some_and(|bytes| bytes > 0)
}

/// Version 2's word for no limit.
fn max(value: i64) -> String {
    match value {
        ..0 => "max".to_owned(),
        _ => value.to_string(),
    }
}

/// One file, if there is something to write to it.
fn one(file: &str, value: Option<impl ToString>) -> Vec<Write> {
    value.map(|value| set(file, value)).into_iter().collect()
}

fn idle(resources: &Resources) -> Writes {
    let idle = resources.cpu.idle;
    Ok(idle
        .map(|idle| set("cpu.idle", idle).optional_if(idle == 0))
        .into_iter()
        .collect())
}

/// The kernel refuses a share for what is idle.
fn shares(cpu: &CpuResources) -> Option<u64> {
    given(cpu.shares).filter(|_| cpu.idle != Some(1))
}

fn quota_v1(cpu: &CpuResources) -> Vec<Write> {
    let period = given(cpu.period).map(|period| set("cpu.cfs_period_us", period));
    // Without a limit there is nothing that a burst could exceed.
    let burst = cpu
        .burst
        .map(|burst| set("cpu.cfs_burst_us", burst).optional_if(burst == 0));
    let quota = given(cpu.quota).map(|quota| set("cpu.cfs_quota_us", quota.max(-1)));
    period.into_iter().chain(quota).chain(burst).collect()
}

fn quota_v2(cpu: &CpuResources) -> Vec<Write> {
    let max = match (given(cpu.quota), given(cpu.period)) {
        (None, None) => None,
        (quota, None) => Some(max(quota.unwrap_or(-1))),
        (quota, Some(period)) => Some(format!("{} {period}", max(quota.unwrap_or(-1)))),
    };
    let burst = cpu
        .burst
        .map(|burst| set("cpu.max.burst", burst).optional_if(burst == 0));
    let max = max.map(|max| set("cpu.max", max));
    max.into_iter().chain(burst).collect()
}

fn realtime(cpu: &CpuResources) -> Vec<Write> {
    let period = given(cpu.realtime_period).map(|period| set("cpu.rt_period_us", period));
    let runtime = given(cpu.realtime_runtime).map(|runtime| set("cpu.rt_runtime_us", runtime));
    period.into_iter().chain(runtime).collect()
}

fn memory_v1(memory: &MemoryResources) -> Writes {
    // The check of swap against memory is the kernel's.
    let swap = match (given(memory.limit), given(memory.swap)) {
        (Some(-1), None) => Some((-1, true)),
        (_, swap) => swap.map(|swap| (swap, swap == -1)),
    };
    let limit = one("memory.limit_in_bytes", given(memory.limit));
    let swap = swap
        .map(|(bytes, optional)| set("memory.memsw.limit_in_bytes", bytes).optional_if(optional));
    Ok(limit.into_iter().chain(swap).collect())
}

fn memory_v2(memory: &MemoryResources) -> Writes {
    let limit = given(memory.limit).map(|bytes| set("memory.max", max(bytes)));
    let swap = swap_alone(memory.limit, memory.swap)?;
    // A kernel without swap has no such file, and uses none.
    let swap = swap.map(|bytes| set("memory.swap.max", max(bytes)).optional_if(bytes <= 0));
    Ok(swap.into_iter().chain(limit).collect())
}

/// The limit, and that of reservations, which Linux has since 5.7.
fn hugepages(resources: &Resources, file: &str) -> Vec<Write> {
    let writes = resources.hugepage_limits.iter().flat_map(|limit| {
        let size = &limit.page_size;
        [
            set(format!("hugetlb.{size}.{file}"), limit.limit),
            set(format!("hugetlb.{size}.rsvd.{file}"), limit.limit).optional_if(true),
        ]
    });
    writes.collect()
}

fn throttles(io: &BlockIoResources) -> [(&'static str, &'static str, &[ThrottleDevice]); 4] {
    [
        ("read_bps", "rbps", &io.throttle_read_bps_device),
        ("write_bps", "wbps", &io.throttle_write_bps_device),
        ("read_iops", "riops", &io.throttle_read_iops_device),
        ("write_iops", "wiops", &io.throttle_write_iops_device),
    ]
}

/// The weights are those of CFQ, which Linux lost in 5.0, or of BFQ.
fn block_io_v1(io: &BlockIoResources) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(weight) = given(io.weight) {
        writes.push(set("blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = given(io.leaf_weight) {
        writes.push(set("blkio.leaf_weight", weight));
    }
    for device in &io.weight_device {
        let value = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = given(device.weight) {
            let value = value(weight);
            writes.push(set("blkio.weight_device", &value).or("blkio.bfq.weight_device", &value));
        }
        if let Some(weight) = given(device.leaf_weight) {
            writes.push(set("blkio.leaf_weight_device", value(weight)));
        }
    }
    for (name, _, devices) in throttles(io) {
        for ThrottleDevice { major, minor, rate } in devices {
            let file = format!("blkio.throttle.{name}_device");
            writes.push(set(file, format!("{major}:{minor} {rate}")));
        }
    }
    writes
}

fn block_io_v2(io: &BlockIoResources) -> Writes {
    let leaf = |device: &reaper_spec::WeightDevice| given(device.leaf_weight).is_some();
    if given(io.leaf_weight).is_some() || io.weight_device.iter().any(leaf) {
        return Err("cgroup v2 has no leaf weights".to_owned());
    }
    let mut writes = Vec::new();
    if let Some(weight) = given(io.weight) {
        let converted = format!("default {}", io_weight_of_blkio(weight));
        writes.push(set("io.bfq.weight", weight).or("io.weight", converted));
    }
    for device in &io.weight_device {
        if let Some(weight) = given(device.weight) {
            let place = format!("{}:{}", device.major, device.minor);
            let converted = format!("{place} {}", io_weight_of_blkio(weight));
            writes
                .push(set("io.bfq.weight", format!("{place} {weight}")).or("io.weight", converted));
        }
    }
    for (_, name, devices) in throttles(io) {
        for ThrottleDevice { major, minor, rate } in devices {
            writes.push(set("io.max", format!("{major}:{minor} {name}={rate}")));
        }
    }
    Ok(writes)
}

fn rdma(resources: &Resources) -> Vec<Write> {
    let limit = |(device, limit): (&String, &reaper_spec::RdmaLimit)| {
        let handles = limit
            .hca_handles
            .map(|count| format!(" hca_handle={count}"));
        let objects = limit
            .hca_objects
            .map(|count| format!(" hca_object={count}"));
        let (handles, objects) = (handles.unwrap_or_default(), objects.unwrap_or_default());
        set("rdma.max", format!("{device}{handles}{objects}"))
    };
    resources.rdma.iter().map(limit).collect()
}

fn priorities(resources: &Resources) -> Vec<Write> {
    let priorities = resources.network.priorities.iter();
    priorities
        .map(|entry| {
            set(
                "net_prio.ifpriomap",
                format!("{} {}", entry.name, entry.priority),
            )
        })
        .collect()
}
