//! How often an idle pod wakes up.

use std::{thread, time::Duration};

use crate::{
    Effort,
    report::{Report, Unit},
    rig::{Rig, Shim},
    task::{Pod, Task},
    usage,
};

pub(crate) fn measure(effort: Effort) -> Report {
    let rig = Rig::new();
    let span = Duration::from_secs(effort.pick(60, 10));
    let pods = Shim::BOTH.map(|shim| Pod::start(&rig, shim));
    let tasks: Vec<Task<'_>> = pods.iter().map(Pod::idle_task).collect();
    usage::settle();
    let before = pods.each_ref().map(|pod| usage::of(&pod.process));
    thread::sleep(span);
    let after = pods.each_ref().map(|pod| usage::of(&pod.process));
    tasks.into_iter().for_each(Task::kill_and_delete);
    pods.into_iter().for_each(Pod::stop);
    let title = format!(
        "Context switches of an idle pod of one container in {} s",
        span.as_secs()
    );
    let mut report = Report::new(&title);
    for (shim, (before, after)) in Shim::BOTH.into_iter().zip(before.into_iter().zip(after)) {
        let switches = after.switches - before.switches;
        report.figure(shim.name(), Unit::Count, switches as f64);
        if shim == Shim::Reaper {
            report.goal(0.0);
        }
    }
    report
}
