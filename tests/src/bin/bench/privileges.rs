//! What the restrictions of a usual pod cost: an engine's default capabilities and seccomp profile.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    Effort,
    cli::{Calls, Runtime},
    report::{Report, Samples, Unit},
};

/// A bundle of Podman's, whose profile is that of the other engines: some 430 calls, three
/// architectures.
const USUAL: &str = include_str!("../../../../reaper-spec/tests/corpus/podman-plain.json");

/// Gives a bundle the restrictions, or takes them.
fn restrict(bundle: &Path, usual: Option<&Value>) {
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).expect("a config.json");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let part = |pointer| usual.and_then(|usual| usual.pointer(pointer));
    for (object, name, pointer) in [
        ("process", "capabilities", "/process/capabilities"),
        ("linux", "seccomp", "/linux/seccomp"),
    ] {
        config[object][name] = part(pointer).cloned().unwrap_or(Value::Null);
    }
    config["process"]["noNewPrivileges"] = json!(false);
    fs::write(path, config.to_string()).expect("write a config.json");
}

pub(crate) fn measure(effort: Effort) -> Report {
    let calls = Calls::new();
    let usual: Value = serde_json::from_str(USUAL).expect("JSON");
    let mut samples: [[Samples; 2]; 3] = Default::default();
    for round in 0..=effort.pick(60, 8) {
        for (runtime, samples) in Runtime::ALL.into_iter().zip(&mut samples) {
            for (usual, samples) in [None, Some(&usual)].into_iter().zip(samples) {
                let bundle = calls.bundle(runtime);
                restrict(&bundle, usual);
                let bundle = bundle.to_str().expect("a path in UTF-8");
                let id = format!("privileges-{round}-{}", usual.is_some());
                let time = calls.time(runtime, &["run", "--bundle", bundle, &id]);
                // The first round warms caches up.
                if round > 0 {
                    samples.push_time(time);
                }
            }
        }
    }
    let mut report = Report::new("`run` of `true` with default capabilities and seccomp profile");
    for (runtime, [without, with]) in Runtime::ALL.into_iter().zip(&samples) {
        let name = runtime.name();
        report.figure(
            &format!("`{name} run` without"),
            Unit::Milliseconds,
            without.clone(),
        );
        report.figure(
            &format!("`{name} run` with"),
            Unit::Milliseconds,
            with.clone(),
        );
        report.ratio(&format!("{name}: with / without"), with, without);
        if runtime == Runtime::Reaper {
            report.goal(1.15);
        }
    }
    report
}
