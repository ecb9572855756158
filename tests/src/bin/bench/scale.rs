//! Whether many containers cost more each than one. The time of a life with no other container is
//! taken before and after, so that what else the machine does meets both alike.

use std::time::Instant;

use crate::{
    Effort,
    report::{Report, Samples, Unit},
    rig::{Rig, Shim},
    task::{Pod, Task},
    usage,
};

/// What is to be at most this many times what it is with one container.
const GROWTH: f64 = 1.2;

pub(crate) fn measure(effort: Effort) -> Report {
    let count = effort.pick(300, 40);
    let mut report = Report::new(&format!("Each of {count} containers against the only one"));
    pods(effort, count, &mut report);
    one_pod(effort, count, &mut report);
    report
}

/// A pod for each container.
fn pods(effort: Effort, count: usize, report: &mut Report) {
    let rig = Rig::new();
    let start = || {
        let pod = Pod::start(&rig, Shim::Reaper);
        let task = pod.idle_task();
        (pod, task)
    };
    let memory = |pods: &[(Pod<'_>, Task<'_>)]| {
        let kib: u64 = pods
            .iter()
            .map(|(pod, _)| usage::of(&pod.process).anonymous_kib)
            .sum();
        Samples::from(kib as f64 / pods.len() as f64)
    };
    let latency = || {
        samples(effort, || {
            let (pod, task) = start();
            task.kill_and_delete();
            pod.stop();
        })
    };
    let mut pods = vec![start()];
    let (memory_one, mut latency_one) = (memory(&pods), latency());
    pods.extend((1..count).map(|_| start()));
    let (memory_all, latency_all) = (memory(&pods), latency());
    for (pod, task) in pods.drain(1..) {
        task.kill_and_delete();
        pod.stop();
    }
    latency_one.extend(latency());
    for (pod, task) in pods {
        task.kill_and_delete();
        pod.stop();
    }
    compare(
        report,
        "one a pod: memory",
        Unit::Kibibytes,
        &memory_one,
        &memory_all,
    );
    compare(
        report,
        "one a pod: a life",
        Unit::Milliseconds,
        &latency_one,
        &latency_all,
    );
}

/// All in one pod.
fn one_pod(effort: Effort, count: usize, report: &mut Report) {
    let rig = Rig::new();
    let pod = Pod::start(&rig, Shim::Reaper);
    let mut tasks = vec![pod.idle_task()];
    let memory = |tasks: &[Task<'_>]| {
        Samples::from(usage::of(&pod.process).anonymous_kib as f64 / tasks.len() as f64)
    };
    let latency = || samples(effort, || pod.idle_task().kill_and_delete());
    let (memory_one, mut latency_one) = (memory(&tasks), latency());
    tasks.extend((1..count).map(|_| pod.idle_task()));
    let (memory_all, latency_all) = (memory(&tasks), latency());
    tasks.drain(1..).for_each(Task::kill_and_delete);
    latency_one.extend(latency());
    tasks.into_iter().for_each(Task::kill_and_delete);
    pod.stop();
    compare(
        report,
        "all in a pod: memory",
        Unit::Kibibytes,
        &memory_one,
        &memory_all,
    );
    compare(
        report,
        "all in a pod: a life",
        Unit::Milliseconds,
        &latency_one,
        &latency_all,
    );
}

fn samples(effort: Effort, mut life: impl FnMut()) -> Samples {
    let mut samples = Samples::default();
    for _ in 0..effort.pick(30, 5) {
        let start = Instant::now();
        life();
        samples.push_time(start.elapsed());
    }
    samples
}

fn compare(report: &mut Report, what: &str, unit: Unit, one: &Samples, all: &Samples) {
    report.figure(&format!("{what}, the only one"), unit, one.clone());
    report.figure(&format!("{what}, among all"), unit, all.clone());
    report.ratio(&format!("{what}, all / one"), all, one);
    report.goal(GROWTH);
}
