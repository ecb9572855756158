//! `ctr run --rm` on a containerd of its own: with Reaper, with runc, and with nothing.

use std::{env, process::Command, time::Duration};

use reaper_tests::{Node, Options, image::BUSYBOX as IMAGE};

use crate::{
    Effort,
    bundle::BUSYBOX,
    cli::time,
    report::{Report, Samples, Unit},
    rig::{bin_dir, binary, newest_suite, tmpfs_dir},
};

const RUNTIMES: [&str; 3] = [
    "io.containerd.reaper.v2",
    "io.containerd.runc.v2",
    "io.containerd.noop.v2",
];

pub(crate) fn measure(effort: Effort) -> Report {
    for name in ["containerd-shim-reaper-v2", "containerd-shim-noop-v2"] {
        binary(name);
    }
    let suite = newest_suite();
    let state = tmpfs_dir();
    let inherited = env::var_os("PATH").unwrap_or_default();
    let folders = [bin_dir(), suite.bin()]
        .into_iter()
        .chain(env::split_paths(&inherited));
    let path = env::join_paths(folders).expect("a PATH without colons in its parts");
    let options = Options::default()
        .env("PATH", path.to_str().expect("a PATH in UTF-8"))
        .env(
            "REAPER_RUNTIME_ROOT",
            state.path().to_str().expect("a path in UTF-8"),
        )
        // What tests want to read costs time here.
        .env("REAPER_SHIM_LOG", "")
        .env("REAPER_RUNTIME_LOG", "");
    let node = Node::start(suite, options);
    let rounds = effort.pick(40, 5);
    let mut samples: [Samples; 3] = Default::default();
    for round in 0..=rounds {
        let times = RUNTIMES.map(|runtime| run(&node, runtime, round));
        // The first round warms caches up.
        if round > 0 {
            samples
                .iter_mut()
                .zip(times)
                .for_each(|(samples, time)| samples.push_time(time));
        }
    }
    let [reaper, runc, noop] = &samples;
    let title = format!(
        "`ctr run --rm` of a static `true`, containerd of {}",
        node.suite()
    );
    let mut report = Report::new(&title);
    report.figure("Reaper", Unit::Milliseconds, reaper.clone());
    report.figure("runc's shim", Unit::Milliseconds, runc.clone());
    report.figure("a shim that does nothing", Unit::Milliseconds, noop.clone());
    report.ratio("Reaper / nothing", reaper, noop);
    report.goal(1.1);
    report.ratio("Reaper / runc's shim", reaper, runc);
    report.goal(0.6);
    report
}

fn run(node: &Node, runtime: &str, round: usize) -> Duration {
    let name = runtime.split('.').nth(2).unwrap_or(runtime);
    let mut command: Command = node.ctr_command();
    command
        .args(["run", "--rm", "--runtime", runtime, "--fifo-dir"])
        .arg(node.dir().join("fifo"))
        .args([
            IMAGE,
            &node.name(&format!("{name}-{round}")),
            BUSYBOX,
            "true",
        ]);
    time(&mut command)
}
