//! What a container's cgroup with its limits costs.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    Effort,
    cli::{Calls, Runtime, time},
    report::{Report, Samples, Unit},
};

/// Gives a bundle the limits of a usual pod.
fn limit(bundle: &Path) {
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).expect("a config.json");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["linux"]["resources"] = json!({
        "memory": { "limit": 256 << 20 },
        "pids": { "limit": 1000 },
        "cpu": { "shares": 512, "quota": 100_000, "period": 100_000 },
    });
    fs::write(path, config.to_string()).expect("write a config.json");
}

pub(crate) fn measure(effort: Effort) -> Report {
    let calls = Calls::new();
    let (mut off, mut cost): (Samples, Samples) = Default::default();
    let mut enforced: [Samples; 3] = Default::default();
    for round in 0..=effort.pick(60, 8) {
        let limited = |runtime| {
            let bundle = calls.bundle(runtime);
            limit(&bundle);
            let bundle = bundle.to_str().expect("a path in UTF-8");
            let id = format!("limited-{round}");
            calls.time(runtime, &["run", "--bundle", bundle, &id])
        };
        let reaper = limited(Runtime::Reaper);
        let bundle = calls.bundle(Runtime::Reaper);
        let mut command = calls.command(Runtime::Reaper);
        command
            .env("REAPER_CGROUPS", "off")
            .args(["run", "--bundle"])
            .arg(bundle)
            .arg(format!("free-{round}"));
        let free = time(&mut command);
        let (runc, crun) = (limited(Runtime::Runc), limited(Runtime::Crun));
        // The first round warms caches up.
        if round > 0 {
            for (samples, time) in enforced.iter_mut().zip([reaper, runc, crun]) {
                samples.push_time(time);
            }
            off.push_time(free);
            // Of two calls, one after the other, so that a load of the machine meets both.
            cost.push((reaper.as_secs_f64() - free.as_secs_f64()) * 1000.0);
        }
    }
    let mut report = Report::new("`run` of `true` with limits of memory, processes and CPU");
    report.figure(
        "`reaper-runtime run`, `cgroups = \"off\"`, no limits",
        Unit::Milliseconds,
        off,
    );
    for (runtime, samples) in Runtime::ALL.into_iter().zip(&enforced) {
        report.figure(
            &format!("`{} run`", runtime.name()),
            Unit::Milliseconds,
            samples.clone(),
        );
    }
    report.figure("Reaper: limits − `off`", Unit::Milliseconds, cost);
    report.goal(1.0);
    let [reaper, runc, crun] = &enforced;
    report.ratio("Reaper / runc", reaper, runc);
    report.ratio("Reaper / crun", reaper, crun);
    report
}
