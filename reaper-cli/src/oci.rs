//! What is printed as JSON, in the form of runc and of the OCI runtime-spec.

use std::collections::BTreeMap;

use reaper_exec::{
    Stats,
    cgroup::{IoStats, UsageStats},
    engine::{self, EventKind},
};
use reaper_spec::{ExitStatus, OCI_VERSION, Status, Timestamp};
use reaper_state::Record;
use serde::Serialize;

use crate::container::{self, PodNames};

/// The OCI state of a container, with what runc and this runtime add to it.
#[derive(Debug, Serialize)]
pub(crate) struct State<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'static str,
    id: &'a str,
    status: Status,
    /// 0 without a process.
    pid: u32,
    bundle: String,
    rootfs: String,
    annotations: BTreeMap<&'a str, &'a str>,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// Why the end could not be observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// The pod and the container of Kubernetes.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    names: Option<PodNames>,
    /// The account that made it. Like runc's, `state` leaves it to `list`.
    owner: &'a str,
}

impl<'a> State<'a> {
    pub(crate) fn of(record: &'a Record) -> Self {
        let exit = record.exit.as_ref();
        Self {
            oci_version: OCI_VERSION,
            id: record.id.as_str(),
            status: record.status,
            pid: pid(record).unwrap_or(0),
            bundle: record.bundle.to_string_lossy().into_owned(),
            rootfs: container::rootfs(record).to_string_lossy().into_owned(),
            annotations: container::visible(record),
            created: record.created,
            started: record.started,
            finished: exit.map(|exit| exit.at),
            exit_code: exit.map(|exit| exit.status.code()),
            signal: exit.and_then(|exit| match exit.status {
                ExitStatus::Signaled { signal, .. } => Some(signal),
                _ => None,
            }),
            reason: exit.and_then(|exit| match &exit.status {
                ExitStatus::Unknown { reason } => Some(reason.as_str()),
                _ => None,
            }),
            names: container::pod_names(record),
            owner: "",
        }
    }

    /// The same, made by the account `owner`.
    pub(crate) fn of_owner(record: &'a Record, owner: &'a str) -> Self {
        Self {
            owner,
            ..Self::of(record)
        }
    }
}

/// The pid of a container's process, while it has one.
pub(crate) fn pid(record: &Record) -> Option<u32> {
    let process = record
        .process
        .as_ref()
        .filter(|_| record.status.is_alive())?;
    Some(process.pid)
}

/// One line of `events`, as runc writes it.
#[derive(Debug, Serialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    data: EventData<'a>,
}

#[derive(Debug, Serialize)]
struct EventData<'a> {
    cpu: Cpu<'a>,
    memory: Memory<'a>,
    pids: Pids,
    blkio: BlockIo,
    hugetlb: BTreeMap<&'a str, Usage>,
}

#[derive(Debug, Serialize)]
struct Cpu<'a> {
    usage: CpuUsage<'a>,
    throttling: Throttling,
}

#[derive(Debug, Serialize)]
struct CpuUsage<'a> {
    total: u64,
    percpu: &'a [u64],
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct Memory<'a> {
    cache: u64,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<Usage>,
    raw: BTreeMap<&'a str, u64>,
}

/// Something with a limit, which is the largest number if there is none.
#[derive(Debug, Serialize)]
struct Usage {
    limit: u64,
    usage: u64,
    max: u64,
    failcnt: u64,
}

impl Usage {
    fn of(usage: &UsageStats) -> Self {
        Self {
            limit: usage.limit.unwrap_or(u64::MAX),
            usage: usage.usage,
            max: usage.peak,
            failcnt: usage.failures,
        }
    }
}

#[derive(Debug, Serialize)]
struct Pids {
    current: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    io_service_bytes_recursive: Vec<BlockIoEntry>,
    io_serviced_recursive: Vec<BlockIoEntry>,
}

#[derive(Debug, Serialize)]
struct BlockIoEntry {
    major: u64,
    minor: u64,
    op: &'static str,
    value: u64,
}

impl BlockIo {
    fn of(devices: &[IoStats]) -> Self {
        let entries = |values: fn(&IoStats) -> [(&'static str, u64); 2]| {
            let of = |io: &IoStats| {
                let (major, minor) = (io.major, io.minor);
                values(io).map(|(op, value)| BlockIoEntry {
                    major,
                    minor,
                    op,
                    value,
                })
            };
            devices.iter().flat_map(of).collect()
        };
        Self {
            io_service_bytes_recursive: entries(|io| {
                [("Read", io.read_bytes), ("Write", io.write_bytes)]
            }),
            io_serviced_recursive: entries(|io| [("Read", io.reads), ("Write", io.writes)]),
        }
    }
}

impl<'a> Event<'a> {
    pub(crate) fn stats(id: &'a str, stats: &'a Stats) -> Self {
        let cgroups = stats.cgroups.as_deref();
        let cpu = cgroups.and_then(|cgroups| cgroups.cpu.as_ref());
        let pids = cgroups.and_then(|cgroups| cgroups.pids.as_ref());
        let hugetlb = cgroups.into_iter().flat_map(|cgroups| &cgroups.hugetlb);
        let data = EventData {
            cpu: Cpu {
                usage: CpuUsage {
                    total: cpu.map_or(stats.cpu_user_ns + stats.cpu_system_ns, |cpu| cpu.usage_ns),
                    percpu: cpu.map_or(&[], |cpu| &cpu.per_cpu_ns),
                    kernel: stats.cpu_system_ns,
                    user: stats.cpu_user_ns,
                },
                throttling: cpu.map_or_else(Throttling::default, |cpu| Throttling {
                    periods: cpu.periods,
                    throttled_periods: cpu.throttled_periods,
                    throttled_time: cpu.throttled_ns,
                }),
            },
            memory: memory(stats),
            pids: Pids {
                current: pids.map_or(stats.processes, |pids| pids.current),
                limit: pids.and_then(|pids| pids.limit),
            },
            blkio: BlockIo::of(cgroups.map_or(&[], |cgroups| &cgroups.io)),
            hugetlb: hugetlb
                .map(|(size, usage)| (size.as_str(), Usage::of(usage)))
                .collect(),
        };
        Self {
            kind: "stats",
            id,
            data,
        }
    }
}

fn memory(stats: &Stats) -> Memory<'_> {
    let cgroups = stats.cgroups.as_deref();
    let Some(memory) = cgroups.and_then(|cgroups| cgroups.memory.as_ref()) else {
        return Memory {
            cache: 0,
            usage: Usage {
                limit: u64::MAX,
                usage: stats.memory_bytes,
                max: 0,
                failcnt: 0,
            },
            swap: None,
            kernel: None,
            raw: BTreeMap::from([
                ("anon", stats.memory_anonymous_bytes),
                ("rss", stats.memory_anonymous_bytes),
            ]),
        };
    };
    Memory {
        cache: memory.cache(),
        usage: Usage::of(&memory.memory),
        swap: memory.swap.as_ref().map(Usage::of),
        kernel: memory.kernel.as_ref().map(Usage::of),
        raw: memory
            .stat
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect(),
    }
}

/// A change in a container's life, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Life<'a> {
    time: Timestamp,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u32>,
}

impl<'a> Life<'a> {
    pub(crate) fn of(event: &'a engine::Event) -> Self {
        Self {
            time: event.at,
            id: event.id.as_str(),
            kind: event.change.as_str(),
            exit_code: match &event.change {
                EventKind::Stopped(exit) => Some(exit.status.code()),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use reaper_spec::{ContainerId, Exit, ProcessIdentity};

    use super::*;

    fn record() -> Record {
        let mut record = Record::new(ContainerId::new("web").unwrap(), "/bundle".into());
        record.process = Some(ProcessIdentity {
            pid: 42,
            start_time: 1,
            boot_id: "boot".to_owned(),
        });
        record.annotations.insert("a".into(), "b".into());
        record
            .annotations
            .insert("reaper.cli/streams-at-start".into(), "true".into());
        record
    }

    #[test]
    fn a_running_container_has_a_pid_and_no_exit_code() {
        let mut record = record();
        record.status = Status::Running;
        let json = serde_json::to_value(State::of(&record)).unwrap();
        assert_eq!(json["status"], "running");
        assert_eq!(json["pid"], 42);
        assert_eq!(json["bundle"], "/bundle");
        assert_eq!(
            json["annotations"],
            serde_json::json!({"a": "b"}),
            "none of our own"
        );
        assert_eq!(json.get("exit_code"), None);
    }

    #[test]
    fn state_of_stopped_container_has_exit_code_time_and_no_pid() {
        let mut record = record();
        record.status = Status::Stopped;
        let status = ExitStatus::Signaled {
            signal: 15,
            core: false,
        };
        record.exit = Some(Exit::new(status, Timestamp::now()));
        let json = serde_json::to_value(State::of(&record)).unwrap();
        assert_eq!(
            (&json["pid"], &json["exit_code"], &json["signal"]),
            (&0.into(), &143.into(), &15.into())
        );
        assert!(json["finished"].is_string());
    }
}
