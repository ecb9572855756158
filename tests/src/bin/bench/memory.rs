//! What a pod that does nothing costs.

use crate::{
    Effort,
    report::{Report, Samples, Unit},
    rig::{Rig, Shim},
    task::{Pod, Task},
    usage,
};

/// How many containers are added to a pod to see what each costs.
const FURTHER: usize = 10;

pub(crate) fn measure(effort: Effort) -> Report {
    let rig = Rig::new();
    let mut report = Report::new("Private anonymous memory and threads of an idle pod");
    for shim in Shim::BOTH {
        let [mut memory, mut threads, mut further]: [Samples; 3] = Default::default();
        for _ in 0..effort.pick(3, 1) {
            let pod = Pod::start(&rig, shim);
            let mut tasks = vec![pod.idle_task()];
            usage::settle();
            let one = usage::of(&pod.process);
            tasks.extend((0..FURTHER).map(|_| pod.idle_task()));
            usage::settle();
            let all = usage::of(&pod.process);
            memory.push(one.anonymous_kib as f64);
            threads.push(one.threads as f64);
            further.push((all.anonymous_kib as f64 - one.anonymous_kib as f64) / FURTHER as f64);
            tasks.into_iter().for_each(Task::kill_and_delete);
            pod.stop();
        }
        let (name, reaper) = (shim.name(), shim == Shim::Reaper);
        let what = if reaper { "shim + monitor" } else { "shim" };
        let mut figure = |what: &str, unit, samples, goal| {
            report.figure(&format!("{name}: {what}"), unit, samples);
            if reaper {
                report.goal(goal);
            }
        };
        figure(
            &format!("{what} of one container"),
            Unit::Kibibytes,
            memory,
            1024.0,
        );
        figure(&format!("threads of {what}"), Unit::Count, threads, 3.0);
        figure(
            "each further container of the pod",
            Unit::Kibibytes,
            further,
            0.3 * 1024.0,
        );
    }
    report
}
