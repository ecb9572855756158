//! What the figures of a container with many processes cost.

use std::time::Duration;

use reaper_tests::runtime::until_within;

use crate::{
    Effort,
    bundle::BUSYBOX,
    report::{Report, Samples},
    rig::{Rig, Shim},
    task::{Pod, Task},
};

/// How many processes the container has.
const PROCESSES: usize = 100;

fn crowd<'a>(pod: &Pod<'a>) -> Task<'a> {
    let script = format!(
        "n=1; while [ $n -lt {PROCESSES} ]; do {BUSYBOX} sleep 1000000 & n=$((n+1)); done; wait"
    );
    let task = pod.task(&[BUSYBOX, "sh", "-c", &script], None);
    task.start();
    until_within("all processes run", Duration::from_secs(60), || {
        (task.processes() >= PROCESSES).then_some(())
    });
    task
}

pub(crate) fn measure(effort: Effort) -> Report {
    let rig = Rig::new();
    let pods = Shim::BOTH.map(|shim| Pod::start(&rig, shim));
    let tasks = pods.each_ref().map(crowd);
    let mut samples: [Samples; 2] = Default::default();
    for round in 0..=effort.pick(200, 20) {
        for (task, samples) in tasks.iter().zip(&mut samples) {
            let time = task.stats();
            // The first round warms caches up.
            if round > 0 {
                samples.push_time(time);
            }
        }
    }
    tasks.into_iter().for_each(Task::kill_and_delete);
    pods.into_iter().for_each(Pod::stop);
    let title =
        format!("`Stats` of a container of {PROCESSES} processes, from the request to the answer");
    Shim::compare(&title, 1.0, &samples)
}
