//! `pause` and `resume`, by each freezer.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::rig::{Rig, shell};

/// A container that writes to a file without end.
struct Ticker {
    rig: Rig,
    file: PathBuf,
}

impl Ticker {
    /// Starts it where `prepare`, a line of shell, has been done to a private copy of the mounts.
    fn start(prepare: &str) -> Self {
        let rig = Rig::new();
        let file = rig.path("ticks");
        // A child, too, which has left the session.
        let loops = "while :; do echo tick >> \"$0\"; done";
        let script = format!(
            "setsid sh -c '{loops}' {0}.child & exec sh -c '{loops}' {0}",
            file.display()
        );
        let bundle = rig.bundle("bundle", &shell(&script));
        let mut run = rig.command_where(prepare, &["run", "--detach", "--bundle", &bundle, "web"]);
        let run = run.stdout(Stdio::null()).stderr(Stdio::null());
        let status = run.status().unwrap();
        assert!(status.success(), "{prepare}");
        let ticker = Self { rig, file };
        ticker.until_it_runs();
        ticker
    }

    fn size(&self) -> u64 {
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |found| found.len());
        size(self.file.clone()) + size(self.file.with_extension("child"))
    }

    fn until_it_runs(&self) {
        let size = self.size();
        while self.size() == size {
            std::thread::yield_now();
        }
    }

    /// It writes nothing while another container is made, runs and is removed.
    fn assert_it_rests(&self) {
        let size = self.size();
        self.rig.ok(&["run", "--", "true"]);
        assert_eq!(self.size(), size);
    }
}

/// Ends as paused containers do: by a signal, by a deletion, and after it has run again.
fn pauses(prepare: &str) {
    for end in ["kill", "kill-all", "delete", "resume"] {
        let ticker = Ticker::start(prepare);
        let rig = &ticker.rig;
        rig.ok(&["pause", "web"]);
        assert_eq!(rig.state("web")["status"], "paused");
        ticker.assert_it_rests();
        let refused = rig.fails(255, &["exec", "web", "true"]);
        assert!(refused.contains("paused"), "{refused}");
        let refused = rig.fails(1, &["pause", "web"]);
        assert!(refused.contains("paused"), "{refused}");
        match end {
            "kill" => {
                rig.ok(&["kill", "web", "KILL"]);
                assert_eq!(rig.ok(&["wait", "web"]), "137\n");
                rig.ok(&["delete", "web"]);
            }
            "kill-all" => {
                rig.ok(&["kill", "--all", "web", "KILL"]);
                assert_eq!(rig.ok(&["wait", "web"]), "137\n");
                rig.ok(&["delete", "web"]);
            }
            "delete" => {
                rig.ok(&["delete", "--force", "web"]);
            }
            _ => {
                rig.ok(&["resume", "web"]);
                assert_eq!(rig.state("web")["status"], "running");
                ticker.until_it_runs();
                rig.ok(&["exec", "web", "true"]);
                rig.ok(&["delete", "--force", "web"]);
            }
        }
        // Nothing of it is left.
        ticker.assert_it_rests();
    }
}

#[test]
fn a_container_is_paused_by_its_cgroup() {
    pauses("true");
}

/// Hides version 2 of a hybrid.
const HIDE_V2: &str =
    "if test -e /sys/fs/cgroup/unified; then mount -t tmpfs none /sys/fs/cgroup/unified; fi";

#[test]
fn a_container_is_paused_by_the_freezer_of_version_1() {
    if !fs::exists("/sys/fs/cgroup/freezer").unwrap() {
        eprintln!("not tried: there is no freezer of version 1");
        return;
    }
    // On a hybrid version 2 is hidden.
    pauses(HIDE_V2);
}

#[test]
fn a_paused_container_ends_with_the_process_that_stands_for_it() {
    for prepare in ["true", HIDE_V2, "export REAPER_CGROUPS=off"] {
        let rig = Rig::new();
        let file = rig.path("pid");
        let bundle = rig.bundle("bundle", &shell("exec sleep 1000"));
        let args = ["run", "--detach", "--pid-file", file.to_str().unwrap()];
        let args = [&args[..], &["--bundle", &bundle, "web"]].concat();
        let mut run = rig.command_where(prepare, &args);
        let run = run.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(run.status().unwrap().success(), "{prepare}");
        rig.ok(&["pause", "web"]);
        let pid = fs::read_to_string(&file).unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let begun = Instant::now();
        while rig.state("web")["status"] != "stopped" {
            assert!(begun.elapsed() < Duration::from_secs(30), "{prepare}");
        }
        rig.ok(&["delete", "web"]);
    }
}

#[test]
fn a_container_without_cgroups_is_paused_by_signals() {
    pauses("export REAPER_CGROUPS=off");
}

#[test]
fn a_container_with_a_limit_runs_with_version_1_alone() {
    if !fs::exists("/sys/fs/cgroup/pids").unwrap() {
        eprintln!("not tried: version 1 has no controller pids");
        return;
    }
    let rig = Rig::new();
    let script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all";
    let fields = json!({ "linux": { "resources": {"pids": {"limit": 5}} } });
    let path = rig.bundle_with("limited", &shell(script), &fields);
    let mut run = rig.command_where(HIDE_V2, &["run", "--bundle", &path, "forker"]);
    let output = run.output().unwrap();
    assert_eq!(output.stdout, b"", "{output:?}");
    assert!(!output.status.success());
    // Those that it left are killed with it.
    let left = fs::read_dir("/sys/fs/cgroup/pids/reaper")
        .into_iter()
        .flatten();
    let left = left
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("forker~"));
    assert_eq!(left.count(), 0);
}
