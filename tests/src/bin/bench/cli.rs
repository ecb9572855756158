//! Runtimes on the command line: one call that does it all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    Effort,
    bundle::{BUSYBOX, Bundles},
    report::{Report, Samples, Unit},
    rig::{binary, tmpfs_dir, without_hybrid},
};

/// An OCI runtime to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Reaper,
    Runc,
    Crun,
}

impl Runtime {
    pub(crate) const ALL: [Self; 3] = [Self::Reaper, Self::Runc, Self::Crun];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reaper => "reaper-runtime",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Reaper => binary(self.name()),
            _ => self.name().into(),
        }
    }
}

/// Where runtimes are called: state and bundles on a tmpfs.
#[derive(Debug)]
pub(crate) struct Calls {
    bundles: Bundles,
    dir: TempDir,
}

impl Calls {
    pub(crate) fn new() -> Self {
        let dir = tmpfs_dir();
        let marker = format!("reaper-bench-{}", std::process::id());
        Self {
            bundles: Bundles::new(dir.path(), &marker),
            dir,
        }
    }

    /// Makes a bundle of `true` for a runtime.
    pub(crate) fn bundle(&self, runtime: Runtime) -> PathBuf {
        let contained = runtime != Runtime::Reaper;
        self.bundles
            .make(contained, runtime.name(), &[BUSYBOX, "true"], &json!({}))
    }

    /// A call of a runtime with its own state root, its arguments still to come.
    pub(crate) fn command(&self, runtime: Runtime) -> Command {
        let root = self.dir.path().join(format!("{}-root", runtime.name()));
        fs::create_dir_all(&root).expect("make a state root");
        let mut command = Command::new(runtime.program());
        command
            .arg("--root")
            .arg(root)
            .env("REAPER_OVERLAY_ENABLED", "false");
        command
    }

    /// How long a call takes, in the mount namespace that the runtime needs.
    pub(crate) fn time(&self, runtime: Runtime, args: &[&str]) -> Duration {
        let mut command = self.command(runtime);
        command.args(args);
        match runtime {
            Runtime::Crun => without_hybrid(move || time(&mut command)),
            _ => time(&mut command),
        }
    }
}

/// How long a command takes from before its start until it was waited for. It must succeed.
pub(crate) fn time(command: &mut Command) -> Duration {
    // No pipes: a container's init process would hold them.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let start = Instant::now();
    let status = command.status().expect("start a command");
    let duration = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    duration
}

pub(crate) fn measure(effort: Effort) -> Report {
    let calls = Calls::new();
    let rounds = effort.pick(60, 8);
    let (mut bare, mut samples): (Samples, [Samples; 3]) = Default::default();
    for round in 0..=rounds {
        let spawned = time(Command::new(Path::new(BUSYBOX)).arg("true"));
        let times = Runtime::ALL.map(|runtime| {
            let bundle = calls.bundle(runtime);
            let bundle = bundle.to_str().expect("a path in UTF-8");
            calls.time(
                runtime,
                &["run", "--bundle", bundle, &format!("run-{round}")],
            )
        });
        // The first round warms caches up.
        if round > 0 {
            bare.push_time(spawned);
            samples
                .iter_mut()
                .zip(times)
                .for_each(|(samples, time)| samples.push_time(time));
        }
    }
    let [reaper, runc, crun] = &samples;
    let mut report = Report::new("`run` of a static `true`, from the command line");
    report.figure(
        "the bare program, without any runtime",
        Unit::Milliseconds,
        bare,
    );
    for (runtime, samples) in Runtime::ALL.into_iter().zip(&samples) {
        report.figure(
            &format!("`{} run`", runtime.name()),
            Unit::Milliseconds,
            samples.clone(),
        );
    }
    report.ratio("Reaper / runc", reaper, runc);
    report.goal(0.125);
    report.ratio("Reaper / crun", reaper, crun);
    report.goal(0.5);
    report
}
