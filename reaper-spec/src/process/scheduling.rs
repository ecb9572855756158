//! How a process is scheduled.

use serde::{Deserialize, Serialize};

use super::words::words;
use crate::{error::Invalid, json::Node};

type Result<T> = std::result::Result<T, Invalid>;

/// How a process is scheduled, where its spec says so. `None` is what processes have from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Scheduling {
    /// The priority of its input and output (ioprio_set(2)).
    pub io_priority: Option<IoPriority>,
    /// Its scheduling policy (sched_setattr(2)).
    pub scheduler: Option<Scheduler>,
    /// The processors that an exec'd process runs on (sched_setaffinity(2)). Init has all.
    pub exec_cpu_affinity: Option<CpuAffinity>,
    /// The execution domain (personality(2)), the container's.
    pub personality: Option<u32>,
}

/// The priority of input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// The class.
    pub class: IoClass,
    /// From 0, the highest, to 7.
    pub priority: u8,
}

/// A scheduling policy with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scheduler {
    /// The policy.
    pub policy: SchedulerPolicy,
    /// The nice value.
    pub nice: i32,
    /// The priority of `Fifo` and `RoundRobin`.
    pub priority: u32,
    /// How it is set.
    pub flags: Vec<SchedulerFlag>,
    /// Of `Deadline`, in nanoseconds.
    pub runtime: u64,
    /// Of `Deadline`, in nanoseconds.
    pub deadline: u64,
    /// Of `Deadline`, in nanoseconds.
    pub period: u64,
}

/// The processors of an exec'd process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CpuAffinity {
    /// While it is set up.
    pub initial: Vec<u32>,
    /// When its program is executed.
    #[serde(rename = "final")]
    pub last: Vec<u32>,
}

words! {
    /// A class of priorities of input and output (ioprio_set(2)).
    IoClass {
        RealTime = "IOPRIO_CLASS_RT",
        BestEffort = "IOPRIO_CLASS_BE",
        Idle = "IOPRIO_CLASS_IDLE",
    }
}

words! {
    /// A scheduling policy (sched(7)).
    SchedulerPolicy {
        Other = "SCHED_OTHER",
        Fifo = "SCHED_FIFO",
        RoundRobin = "SCHED_RR",
        Batch = "SCHED_BATCH",
        Iso = "SCHED_ISO",
        Idle = "SCHED_IDLE",
        Deadline = "SCHED_DEADLINE",
    }
}

words! {
    /// A flag of sched_setattr(2).
    SchedulerFlag {
        ResetOnFork = "SCHED_FLAG_RESET_ON_FORK",
        Reclaim = "SCHED_FLAG_RECLAIM",
        DeadlineOverrun = "SCHED_FLAG_DL_OVERRUN",
        KeepPolicy = "SCHED_FLAG_KEEP_POLICY",
        KeepParams = "SCHED_FLAG_KEEP_PARAMS",
        UtilClampMin = "SCHED_FLAG_UTIL_CLAMP_MIN",
        UtilClampMax = "SCHED_FLAG_UTIL_CLAMP_MAX",
    }
}

/// Reads what `process` says of it.
pub(super) fn read(process: &Node<'_>) -> Result<Scheduling> {
    Ok(Scheduling {
        io_priority: process.get("ioPriority")?.opt(io_priority)?,
        scheduler: process.get("scheduler")?.opt(scheduler)?,
        exec_cpu_affinity: process.get("execCPUAffinity")?.opt(affinity)?,
        personality: None,
    })
}

/// Reads `linux.personality`.
pub(crate) fn personality(node: &Node<'_>) -> Result<u32> {
    const PER_LINUX: u32 = 0;
    const PER_LINUX32: u32 = 8;
    let flags = node.get("flags")?;
    if !flags
        .items("an array of flags", |item| item.owned())?
        .is_empty()
    {
        // The specification has none, and runc refuses them too.
        return Err(flags.invalid("no flags: the specification has none"));
    }
    let domain = node.get("domain")?;
    match domain.string()? {
        "LINUX" => Ok(PER_LINUX),
        "LINUX32" => Ok(PER_LINUX32),
        _ => Err(domain.invalid("LINUX or LINUX32")),
    }
}

fn io_priority(node: &Node<'_>) -> Result<IoPriority> {
    Ok(IoPriority {
        class: IoClass::read(&node.get("class")?)?,
        priority: node
            .get("priority")?
            .opt(|priority| priority.integer(0..=7))?
            .unwrap_or_default(),
    })
}

fn scheduler(node: &Node<'_>) -> Result<Scheduler> {
    use SchedulerPolicy::{Deadline, Fifo, RoundRobin};
    let time = |key| -> Result<u64> {
        let time = node.get(key)?.opt(|time| time.integer(0..=u64::MAX))?;
        Ok(time.unwrap_or_default())
    };
    let priority = node.get("priority")?;
    let scheduler = Scheduler {
        policy: SchedulerPolicy::read(&node.get("policy")?)?,
        nice: node
            .get("nice")?
            .opt(|nice| nice.integer(-20..=19))?
            .unwrap_or_default(),
        priority: priority
            .opt(|priority| priority.integer(0..=99))?
            .unwrap_or_default(),
        flags: node
            .get("flags")?
            .items("an array of flags", SchedulerFlag::read)?,
        runtime: time("runtime")?,
        deadline: time("deadline")?,
        period: time("period")?,
    };
    if scheduler.priority != 0 && !matches!(scheduler.policy, Fifo | RoundRobin) {
        return Err(priority.invalid("no priority: only SCHED_FIFO and SCHED_RR have one"));
    }
    let times = [scheduler.runtime, scheduler.deadline, scheduler.period];
    if times != [0; 3] && scheduler.policy != Deadline {
        let expected = "no runtime, deadline or period: only SCHED_DEADLINE has them";
        return Err(node.get("policy")?.invalid(expected));
    }
    Ok(scheduler)
}

fn affinity(node: &Node<'_>) -> Result<CpuAffinity> {
    let list = |key| Ok(node.get(key)?.opt(processors)?.unwrap_or_default());
    Ok(CpuAffinity {
        initial: list("initial")?,
        last: list("final")?,
    })
}

/// Numbers and ranges, with commas between: `0-3,7`.
fn processors(node: &Node<'_>) -> Result<Vec<u32>> {
    /// More than a kernel is built for (`CONFIG_NR_CPUS`).
    const MOST: u32 = 8192;
    let mut all = Vec::new();
    for part in node.string()?.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            (Ok(first), Ok(last)) if first <= last && last < MOST => all.extend(first..=last),
            _ => return Err(node.invalid("a list of processors such as 0-3,7")),
        }
    }
    Ok(all)
}
