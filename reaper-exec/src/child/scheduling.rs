//! How the process is scheduled.

use reaper_spec::{IoClass, IoPriority, Scheduler, SchedulerFlag, SchedulerPolicy, Scheduling};

use super::step::{Failed, Step as _};
use crate::{
    scheduling::{set_affinity, set_personality},
    sys::{self, SchedulerAttributes},
};

/// Sets what the spec says of it. `first` is init, which has all processors.
pub(super) fn set(scheduling: &Scheduling, first: bool) -> Result<(), Failed> {
    if let Some(domain) = scheduling.personality {
        set_personality(domain).step("set the personality")?;
    }
    if let Some(priority) = scheduling.io_priority {
        sys::set_io_priority(value(priority)).step("set ioPriority")?;
    }
    if let Some(scheduler) = &scheduling.scheduler {
        let policy = scheduler.policy.as_str();
        sys::set_scheduler(&attributes(scheduler)).step(format!("set the scheduler {policy}"))?;
    }
    let affinity = scheduling.exec_cpu_affinity.iter().filter(|_| !first);
    for processors in affinity.flat_map(|affinity| [&affinity.initial, &affinity.last]) {
        if !processors.is_empty() {
            set_affinity(processors).step("set execCPUAffinity")?;
        }
    }
    Ok(())
}

/// `IOPRIO_PRIO_VALUE`.
fn value(priority: IoPriority) -> i32 {
    const CLASS_SHIFT: u32 = 13;
    let class = match priority.class {
        IoClass::RealTime => 1,
        IoClass::BestEffort => 2,
        IoClass::Idle => 3,
    };
    class << CLASS_SHIFT | i32::from(priority.priority)
}

fn attributes(scheduler: &Scheduler) -> SchedulerAttributes {
    let policy = match scheduler.policy {
        SchedulerPolicy::Other => 0,
        SchedulerPolicy::Fifo => 1,
        SchedulerPolicy::RoundRobin => 2,
        SchedulerPolicy::Batch => 3,
        SchedulerPolicy::Iso => 4,
        SchedulerPolicy::Idle => 5,
        SchedulerPolicy::Deadline => 6,
    };
    let flag = |flag: &SchedulerFlag| match flag {
        SchedulerFlag::ResetOnFork => 0x01,
        SchedulerFlag::Reclaim => 0x02,
        SchedulerFlag::DeadlineOverrun => 0x04,
        SchedulerFlag::KeepPolicy => 0x08,
        SchedulerFlag::KeepParams => 0x10,
        SchedulerFlag::UtilClampMin => 0x20,
        SchedulerFlag::UtilClampMax => 0x40,
    };
    SchedulerAttributes {
        size: size_of::<SchedulerAttributes>() as u32,
        policy,
        flags: scheduler
            .flags
            .iter()
            .map(flag)
            .fold(0, |all, one| all | one),
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}
