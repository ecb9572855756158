//! The trial of `doctor`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    mount::{MsFlags, mount, umount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use serde_json::Value;

use crate::rig::{Rig, code};

/// What a call of `doctor --json` found about something.
fn about(output: &Output, about: &str) -> Vec<Value> {
    let findings: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = findings.as_array().unwrap().iter();
    let found = findings.filter(|finding| finding["about"] == about);
    found.cloned().collect()
}

/// What was found below the rig's folder. Cgroups are the whole machine's, and other containers come
/// and go meanwhile.
fn leftovers_of(rig: &Rig, output: &Output) -> Vec<Value> {
    let own = rig.path("");
    let own = own.to_str().unwrap();
    let mut leftovers = about(output, "leftovers");
    leftovers.retain(|finding| found(finding).contains(own));
    leftovers
}

/// The one finding `trial`.
fn trial(output: &Output) -> Value {
    let found = about(output, "trial");
    assert_eq!(found.len(), 1, "{output:?}");
    found[0].clone()
}

fn found(finding: &Value) -> &str {
    finding["found"].as_str().unwrap()
}

/// The names of the steps.
fn steps(finding: &Value) -> Vec<String> {
    let steps = finding["steps"].as_array().unwrap().iter();
    steps
        .map(|step| step["step"].as_str().unwrap().to_owned())
        .collect()
}

/// The folders of trials at and below those that a rig has.
fn trials(rig: &Rig) -> Vec<PathBuf> {
    let folders = [rig.path(""), rig.root(), rig.path("base")];
    let entries = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(".doctor-")
        })
        .collect()
}

fn leaves_nothing(rig: &Rig) {
    assert_eq!(trials(rig), [] as [PathBuf; 0]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = rig.path("");
    let left: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(own.to_str().unwrap()) && line.contains(".doctor-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_trial_runs_a_container_over_an_overlay_and_leaves_nothing() {
    let rig = Rig::with_overlay();
    let output = rig.call(&["doctor", "--json"]);
    let trial = trial(&output);
    assert_eq!(trial["level"], "good", "{trial}");
    let worked = "a scope, a container, an exec and their removal worked in ";
    assert!(found(&trial).starts_with(worked), "{trial}");
    let steps = steps(&trial);
    for step in [
        "make a scope and a container in it",
        "see the container run",
        "execute a second process in the container",
        "keep a write off this machine",
        "pause the container",
        "kill the container",
        "remove the scope",
        "leave nothing behind",
        "remove the private folder",
    ] {
        assert!(steps.iter().any(|done| done == step), "{step}: {steps:?}");
    }
    assert_eq!(code(output.status), 0);
    leaves_nothing(&rig);
    // Nor what was not there before.
    assert!(!rig.root().exists());
    assert!(!rig.path("base").exists());
}

#[test]
fn trial_uses_configured_overlay_and_store() {
    let rig = Rig::new();
    let output = rig.call(&["--namespace", "k8s.io", "doctor", "--json"]);
    let off = trial(&output);
    assert_eq!(off["level"], "good", "{off}");
    assert!(found(&off).starts_with("a container, an exec"), "{off}");
    assert!(!steps(&off).iter().any(|step| step.contains("scope")));

    // Containers are running, and the layers are where they are kept.
    let rig = Rig::with_overlay();
    let disk = tempfile::tempdir().unwrap();
    let config = format!(
        "store = \"sqlite\"\n[overlay]\nbase = {:?}\n",
        disk.path().join("base")
    );
    fs::write(rig.path("config.toml"), config).unwrap();
    rig.running("c");
    let output = rig.call(&["doctor", "--json"]);
    let disk_trial = trial(&output);
    assert_eq!(disk_trial["level"], "good", "{disk_trial}");
    assert_eq!(rig.state("c")["status"], "running");
    rig.ok(&["delete", "--force", "c"]);
    rig.ok(&["overlay", "rm", "node"]);
    // Where the temporary directory is a tmpfs itself, the whole base is a mount.
    let mounted = ["base/live", "base"]
        .map(|name| nix::mount::umount2(&disk.path().join(name), nix::mount::MntFlags::MNT_DETACH));
    assert!(mounted.iter().any(Result::is_ok), "{mounted:?}");
    leaves_nothing(&rig);
}

#[test]
fn the_trial_drives_the_runtime_that_is_configured() {
    let rig = Rig::new();
    let script = rig.path("runtime");
    // This program is one.
    let text = format!(
        "#!/bin/sh\nREAPER_OVERLAY_BASE={} exec {} \"$@\"\n",
        rig.path("base").display(),
        env!("CARGO_BIN_EXE_reaper-runtime")
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = rig.command(&["doctor", "--json"]);
    let output = command
        .env("REAPER_RUNTIME_PATH", &script)
        .output()
        .unwrap();
    let driven = trial(&output);
    assert_eq!(driven["level"], "good", "{driven}");
    leaves_nothing(&rig);

    let missing = rig
        .command(&["doctor", "--json"])
        .env("REAPER_RUNTIME_PATH", "/nowhere/runtime")
        .output();
    let missing = trial(&missing.unwrap());
    assert_eq!(missing["level"], "problem", "{missing}");
    assert!(found(&missing).contains("/nowhere/runtime"), "{missing}");
    assert!(found(&missing).contains("ENOENT"), "{missing}");
    leaves_nothing(&rig);
}

#[test]
fn overlay_refused_by_kernel_is_reported_with_kernel_message() {
    let rig = Rig::with_overlay();
    let over = rig.path("over");
    let layers = ["lower", "upper", "work"].map(|name| rig.path(name));
    for folder in layers.iter().chain([&over]) {
        fs::create_dir(folder).unwrap();
    }
    let [lower, upper, work] = layers.map(|path| path.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let overlay = Some("overlay");
    mount(
        overlay,
        &over,
        overlay,
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    // Below `/run` a tmpfs would be mounted over it, so it is the base's own filesystem that counts.
    let config = format!("[overlay]\nbase = {over:?}\n[overlay.masks]\nreplace = []\n");
    fs::write(rig.path("config.toml"), config).unwrap();
    let output = rig.call(&["doctor", "--json"]);
    umount(&over).unwrap();
    let refused = trial(&output);
    assert_eq!(refused["level"], "problem", "{refused}");
    let text = found(&refused);
    assert!(text.contains("; the kernel says: overlay"), "{text}");
    assert!(
        text.starts_with("cannot make a scope and a container in it: "),
        "{text}"
    );
    assert!(text.contains("(EINVAL)"), "{text}");
    assert!(text.contains("not supported as upperdir"), "{text}");
    assert!(
        refused["fix"].as_str().unwrap().contains("[overlay]"),
        "{refused}"
    );
    assert_eq!(code(output.status), 1);
    leaves_nothing(&rig);
}

#[test]
fn a_state_root_that_cannot_be_written_to_is_a_problem() {
    let rig = Rig::with_overlay();
    fs::create_dir(rig.root()).unwrap();
    let none = None::<&str>;
    mount(
        Some("x"),
        &rig.root(),
        Some("tmpfs"),
        MsFlags::MS_RDONLY,
        none,
    )
    .unwrap();
    let output = rig.call(&["doctor", "--json"]);
    umount(&rig.root()).unwrap();
    let refused = trial(&output);
    assert_eq!(refused["level"], "problem", "{refused}");
    assert!(
        found(&refused).starts_with("cannot make a private folder: "),
        "{refused}"
    );
    assert!(found(&refused).contains("(EROFS)"), "{refused}");
    assert!(
        refused["fix"].as_str().unwrap().contains("state_root"),
        "{refused}"
    );
    leaves_nothing(&rig);
}

/// Calls `doctor` below a filter that refuses a system call.
fn without(rig: &Rig, call: i64, errno: i32) -> Output {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    thread::scope(|scope| {
        // It holds for this thread and its children.
        let called = scope.spawn(|| {
            apply_filter(&program).unwrap();
            rig.call(&["doctor", "--json"])
        });
        called.join().unwrap()
    })
}

#[test]
fn doctor_names_step_and_errno_of_seccomp_refusal() {
    let rig = Rig::with_overlay();
    let output = without(&rig, libc::SYS_unshare, libc::EPERM);
    let refused = trial(&output);
    assert_eq!(refused["level"], "problem", "{refused}");
    assert!(
        found(&refused).starts_with("cannot make a scope "),
        "{refused}"
    );
    assert!(found(&refused).contains("(EPERM)"), "{refused}");
    assert!(
        refused["fix"].as_str().unwrap().contains("seccomp"),
        "{refused}"
    );
    leaves_nothing(&rig);

    // One that has something that stands in for it is none.
    let output = without(&rig, libc::SYS_mount_setattr, libc::ENOSYS);
    let older = trial(&output);
    assert_eq!(older["level"], "good", "{older}");
    let interfaces = &about(&output, "interfaces")[0];
    let text = "mount_setattr: ENOSYS: volumes get their options by remounts";
    assert!(found(interfaces).contains(text), "{interfaces}");
    assert_eq!(interfaces["level"], "warning", "since a filter is in force");
    assert_eq!(code(output.status), 0);
    leaves_nothing(&rig);
}

/// Starts a doctor, and waits until its container has a monitor.
fn at_work(rig: &Rig) -> Child {
    let mut command = rig.command(&["doctor", "--json"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let until = Instant::now() + Duration::from_secs(30);
    let has_monitor = |folder: PathBuf| {
        let containers = fs::read_dir(folder.join("state")).into_iter().flatten();
        let mut paths = containers.flatten().map(|entry| entry.path());
        paths.any(|path| path.join("monitor").exists())
    };
    while !trials(rig).into_iter().any(has_monitor) {
        assert!(Instant::now() < until, "no container of a trial");
        thread::yield_now();
    }
    child.unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, signal).unwrap();
}

/// Whether a process of the trial in this folder runs.
fn runs(trial: &Path) -> bool {
    let name = trial.file_name().unwrap().to_str().unwrap();
    let found = Command::new("pgrep").args(["-f", name]).output().unwrap();
    !found.stdout.is_empty()
}

#[test]
fn next_doctor_removes_leftovers_of_killed_one() {
    let rig = Rig::with_overlay();
    let mut doctor = at_work(&rig);
    signal(&doctor, Signal::SIGKILL);
    doctor.wait().unwrap();
    let left = trials(&rig);
    assert!(!left.is_empty());

    // One that only looks leaves it, and says so.
    let looked = rig.call(&["doctor", "--json", "--no-trial"]);
    assert_eq!(about(&looked, "trial"), [] as [Value; 0]);
    let leftovers = leftovers_of(&rig, &looked);
    assert_eq!(leftovers.len(), left.len(), "{leftovers:?}");
    assert_eq!(leftovers[0]["level"], "warning");
    assert_eq!(trials(&rig), left);

    let next = rig.call(&["doctor", "--json"]);
    let removed = leftovers_of(&rig, &next);
    assert_eq!(removed.len(), left.len(), "{removed:?}");
    for removed in removed {
        assert_eq!(removed["level"], "good", "{removed}");
        assert!(found(&removed).starts_with("removed "), "{removed}");
    }
    assert_eq!(trial(&next)["level"], "good");
    leaves_nothing(&rig);
    assert!(!left.iter().any(|trial| runs(trial)));
}

#[test]
fn a_doctor_that_is_stopped_by_a_signal_removes_its_trial() {
    let rig = Rig::with_overlay();
    let mut doctor = at_work(&rig);
    let trials = trials(&rig);
    signal(&doctor, Signal::SIGINT);
    assert_eq!(doctor.wait().unwrap().signal(), Some(libc::SIGINT));
    leaves_nothing(&rig);
    assert!(!trials.iter().any(|trial| runs(trial)));
}
