//! Runtimes on the command line, as engines use them: four calls for a container's life.

use std::time::Duration;

use reaper_tests::{ctr::Output, runtime::until};
use serde_json::Value;

use crate::{
    Effort,
    cli::{Calls, Runtime},
    report::{Report, Samples, Unit},
    rig::without_hybrid,
};

pub(crate) fn measure(effort: Effort) -> Report {
    let calls = Calls::new();
    let rounds = effort.pick(60, 8);
    let mut samples: [Samples; 3] = Default::default();
    for round in 0..=rounds {
        let times = Runtime::ALL.map(|runtime| life(&calls, runtime, &format!("calls-{round}")));
        // The first round warms caches up.
        if round > 0 {
            samples
                .iter_mut()
                .zip(times)
                .for_each(|(samples, time)| samples.push_time(time));
        }
    }
    let [reaper, runc, crun] = &samples;
    let mut report = Report::new("`create` + `start` + `state` + `delete`, four calls");
    for (runtime, samples) in Runtime::ALL.into_iter().zip(&samples) {
        report.figure(runtime.name(), Unit::Milliseconds, samples.clone());
    }
    report.ratio("Reaper / crun", reaper, crun);
    report.goal(0.6);
    report.ratio("Reaper / runc", reaper, runc);
    report
}

/// The time of the four calls. The container's own time between `state` and `delete` is not in it.
fn life(calls: &Calls, runtime: Runtime, id: &str) -> Duration {
    let bundle = calls.bundle(runtime);
    let bundle = bundle.to_str().expect("a path in UTF-8");
    let before = calls.time(runtime, &["create", "--bundle", bundle, id])
        + calls.time(runtime, &["start", id])
        + calls.time(runtime, &["state", id]);
    until("the container stops", || {
        let mut command = calls.command(runtime);
        command.args(["state", id]);
        let state = match runtime {
            Runtime::Crun => without_hybrid(move || Output::of(&mut command)),
            _ => Output::of(&mut command),
        };
        let state: Value = serde_json::from_str(&state.assert_success()).expect("a state in JSON");
        (state["status"] == "stopped").then_some(())
    });
    before + calls.time(runtime, &["delete", id])
}
