//! What a process has of who called for it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    hostile::{KEY, make_hostile},
    rig::{Rig, code, first_line, shell},
};

/// Says all that a process could have of its caller, a line each.
const TELL: &str = "env | sort | grep -v ^_=; echo files $(ls /proc/self/fd); \
    echo cwd $(pwd); echo umask $(umask); grep -E '^(Sig(Blk|Ign)|Cpus_allowed:)' /proc/self/status; \
    set -- $(cut -d')' -f2 /proc/self/stat); echo tty $5 nice ${17} policy ${39}; \
    echo personality $(cat /proc/self/personality); setpriv --dump | grep Securebits; \
    echo keys $(grep -c reaper-test-secret /proc/keys)";

fn lines(output: &Output) -> Vec<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{error}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What a process says that was called for by a clean caller and by a hostile one.
fn both(call: impl Fn() -> Command) -> (Vec<String>, Vec<String>) {
    let clean = call().output().unwrap();
    let mut command = call();
    command
        .current_dir("/usr")
        .env("SECRET", "of the caller")
        .env("LISTEN_FDS", "1");
    let _terminal = make_hostile(&mut command);
    (lines(&clean), lines(&command.output().unwrap()))
}

#[test]
fn a_bundle_gets_nothing_of_its_caller() {
    let rig = Rig::new();
    let bundle = rig.bundle("b", &shell(TELL));
    let (clean, hostile) = both(|| rig.command(&["run", "--bundle", &bundle, "c"]));
    assert_eq!(clean, hostile);
    assert!(clean.contains(&"keys 0".to_owned()), "{clean:?}");
    assert!(clean.contains(&"umask 0022".to_owned()), "{clean:?}");
}

#[test]
fn an_execd_process_gets_nothing_of_its_caller() {
    let rig = Rig::new();
    rig.running("c");
    let (clean, hostile) = both(|| rig.command(&["exec", "c", "sh", "-c", TELL]));
    assert_eq!(clean, hostile);
}

#[test]
fn a_container_of_an_oci_runtime_gets_nothing_of_its_caller() {
    let rig = Rig::new();
    let program = env!("CARGO_BIN_EXE_reaper-runtime");
    let runtime = rig.path("runtime");
    let text = format!("#!/bin/sh\nREAPER_OVERLAY_ENABLED=false exec {program} \"$@\"\n");
    fs::write(&runtime, text).unwrap();
    fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
    let bundle = rig.bundle("b", &shell(TELL));
    let (clean, hostile) = both(|| {
        let mut command = rig.command(&["run", "--bundle", &bundle, "c"]);
        command.env("REAPER_RUNTIME_PATH", &runtime);
        command
    });
    assert_eq!(clean, hostile);
    assert!(clean.iter().any(|line| line.ends_with("0000000000000000")));
}

#[test]
fn a_command_has_of_its_caller_what_a_shells_would_but_no_keys_files_or_blocked_signals() {
    let rig = Rig::new();
    let (clean, hostile) = both(|| rig.command(&["run", "--", "sh", "-c", TELL]));
    let only = |of: &[String], other: &[String]| -> Vec<String> {
        let rest = of.iter().filter(|line| !other.contains(line));
        rest.filter(|line| !line.starts_with("PWD=") && !line.starts_with("OLDPWD="))
            .cloned()
            .collect()
    };
    let mut own = only(&hostile, &clean);
    own.retain(|line| !line.starts_with("Cpus_allowed"));
    assert_eq!(
        own,
        [
            "SECRET=of the caller",
            "cwd /usr",
            "umask 0077",
            "SigIgn:\t0000000000000007",
            "tty 0 nice 5 policy 3",
            "personality 00040000",
        ]
    );
    assert!(hostile.contains(&"keys 0".to_owned()), "{hostile:?}");
}

#[test]
fn the_callers_keys_come_along_if_they_are_asked_for() {
    let rig = Rig::new();
    let count = format!("grep -c {KEY} /proc/keys");
    let mut command = rig.command(&["run", "--no-new-keyring", "--", "sh", "-c", &count]);
    let _terminal = make_hostile(&mut command);
    assert_eq!(lines(&command.output().unwrap()), ["1"]);
}

#[test]
fn a_command_that_a_hang_up_shall_not_reach_goes_on() {
    let rig = Rig::new();
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
    ] {
        let script = format!(
            "trap '' {name}; exec {} --root {} --config {} run -- sh -c \
             'trap \"exit 7\" USR1; echo ready; while :; do sleep 1000 & wait; done'",
            env!("CARGO_BIN_EXE_reaper-runtime"),
            rig.root().display(),
            rig.path("config.toml").display(),
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(first_line(&mut child), "ready");
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        // What is passed on, is so in this order.
        kill(pid, Signal::SIGUSR1).unwrap();
        assert_eq!(code(child.wait().unwrap()), 7, "{name}");
    }
}

#[test]
fn handed_over_sockets_are_for_the_command() {
    let rig = Rig::new();
    let call = |preserve: &str, pid: &str| {
        let bundle = rig.bundle(
            "b",
            &shell("echo $LISTEN_FDS ${LISTEN_PID:+$(($LISTEN_PID - $$))}"),
        );
        let program = env!("CARGO_BIN_EXE_reaper-runtime");
        let (root, config) = (rig.root(), rig.path("config.toml"));
        let of = |run: &str| {
            format!(
                "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID={pid} exec {program} --root {} \
                 --config {} run {preserve} {run}",
                root.display(),
                config.display()
            )
        };
        let tell = "sh -c 'echo $LISTEN_FDS ${LISTEN_PID:+$(($LISTEN_PID - $$))}'";
        [
            of(&format!("-- {tell}")),
            of(&format!("--bundle {bundle} c")),
        ]
        .map(|script| {
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
    };
    assert_eq!(call("--preserve-fds 1", "$$"), ["1 0\n", "1 0\n"]);
    assert_eq!(call("", "$$"), ["\n", "\n"]);
    assert_eq!(call("--preserve-fds 1", "1"), ["\n", "\n"]);
}

#[test]
fn a_home_that_is_empty_is_the_accounts() {
    let rig = Rig::new();
    let home = rig.ok(&["run", "--env", "HOME=", "--", "sh", "-c", "echo $HOME"]);
    assert_eq!(home, "/root\n");
    let error = rig.fails(1, &["run", "--env", "", "--", "true"]);
    assert!(error.contains("--env"), "{error}");
}

#[test]
fn an_oom_adjustment_that_is_refused_is_said_with_what_is_left() {
    let rig = Rig::new();
    let mut process = shell("cat /proc/self/oom_score_adj");
    process["oomScoreAdj"] = (-500).into();
    let bundle = rig.bundle("b", &process);
    let program = env!("CARGO_BIN_EXE_reaper-runtime");
    let output = Command::new("setpriv")
        .args([
            "--bounding-set",
            "-sys_resource",
            "--inh-caps",
            "-sys_resource",
        ])
        .args([program, "--root"])
        .arg(rig.root())
        .arg("--config")
        .arg(rig.path("config.toml"))
        .args(["run", "--bundle", &bundle, "c"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let left = String::from_utf8(output.stdout).unwrap();
    assert_ne!(left, "-500\n");
    let said = format!("it is {}", left.trim());
    assert!(error.contains("oomScoreAdj -500 was refused"), "{error}");
    assert!(error.contains(&said), "{error}");
}

#[test]
fn a_file_goes_to_the_user_but_a_terminal_stays_its_owners() {
    let rig = Rig::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let file = fs::File::create(rig.path("out")).unwrap();
    let owner = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).unwrap().st_uid;
    let before = owner(&pty.slave);
    let status = rig
        .command(&["run", "--user", "1234:1234", "--", "true"])
        .stdin(pty.slave.try_clone().unwrap())
        .stdout(pty.slave.try_clone().unwrap())
        .stderr(file.try_clone().unwrap())
        .status();
    assert!(status.unwrap().success());
    assert_eq!(owner(&pty.slave), before);
    assert_eq!(owner(&file.into()), 1234);
}
