//! From the end of a process to the event that tells of it.

use crate::{
    Effort,
    report::{Report, Samples},
    rig::{Rig, Shim},
    task::Pod,
};

pub(crate) fn measure(effort: Effort) -> Report {
    let rig = Rig::new();
    let pods = Shim::BOTH.map(|shim| Pod::start(&rig, shim));
    let mut samples: [Samples; 2] = Default::default();
    for _ in 0..effort.pick(200, 20) {
        for (pod, samples) in pods.iter().zip(&mut samples) {
            let task = pod.idle_task();
            let killed = task.kill();
            samples.push_time(rig.events.exit_of(task.id()).duration_since(killed));
            task.delete();
        }
    }
    pods.into_iter().for_each(Pod::stop);
    let title = "From `kill(2)` of the workload to `TaskExit` at an event server";
    Shim::compare(title, 1.0, &samples)
}
