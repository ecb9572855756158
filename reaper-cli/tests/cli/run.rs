//! `run`, in both of its forms.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::rig::{Rig, code, first_line, is_alive, shell};

#[test]
fn run_returns_exit_code_of_command() {
    let rig = Rig::new();
    for expected in [0, 1, 2, 77, 126, 127, 128, 130, 200, 254, 255] {
        let script = format!("exit {expected}");
        let output = rig.call(&["run", "--", "sh", "-c", &script]);
        assert_eq!(code(output.status), expected);
    }
}

#[test]
fn run_returns_128_plus_signal_number() {
    let rig = Rig::new();
    for (name, expected) in [("TERM", 143), ("KILL", 137), ("SEGV", 139), ("USR1", 138)] {
        let script = format!("kill -{name} $$");
        let output = rig.call(&["run", "--", "sh", "-c", &script]);
        assert_eq!(code(output.status), expected, "{name}");
    }
}

#[test]
fn run_passes_streams_unchanged() {
    let rig = Rig::new();
    let mut child = rig
        .command(&["run", "--", "sh", "-c", "cat; echo done >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(
        output.stdout == bytes,
        "{} of {} bytes",
        output.stdout.len(),
        bytes.len()
    );
    assert_eq!(output.stderr, b"done\n");
}

#[test]
fn a_command_has_the_callers_directory_and_environment_unless_told_otherwise() {
    let rig = Rig::new();
    let here = fs::canonicalize(rig.path(".")).unwrap();
    let output = rig
        .command(&[
            "run",
            "--env",
            "ONE=1",
            "--",
            "sh",
            "-c",
            "pwd; echo $ONE $TWO; umask",
        ])
        .current_dir(&here)
        .env("ONE", "0")
        .env("TWO", "2")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with(&format!("{}\n1 2\n", here.display())),
        "{text}"
    );

    let script = "pwd; id -u; id -g; id -G; echo \"home=$HOME\"";
    let text = rig.ok(&[
        "run",
        "--cwd",
        "/usr",
        "--user",
        "12345:54321",
        "-g",
        "777",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["/usr", "12345", "54321"]);
    assert!(lines[3].split(' ').any(|gid| gid == "777"), "{text}");
    assert_ne!(
        lines[4],
        format!("home={}", std::env::var("HOME").unwrap_or_default())
    );
}

#[test]
fn the_container_is_deleted_unless_it_is_kept() {
    let rig = Rig::new();
    rig.ok(&["run", "--name", "gone", "--", "true"]);
    rig.fails(1, &["state", "gone"]);
    rig.ok(&["run", "--name", "kept", "--keep", "--", "true"]);
    assert_eq!(rig.state("kept")["exit_code"], 0);
    let pid = rig.ok(&[
        "run",
        "--",
        "sh",
        "-c",
        "setsid sleep 1000 >/dev/null 2>&1 & echo $!",
    ]);
    assert!(!is_alive(pid.trim()), "what it started has ended with it");
}

#[test]
fn a_detached_run_prints_the_name_and_goes_on() {
    let rig = Rig::new();
    let mut child = rig
        .command(&["run", "--detach", "--", "sleep", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let id = first_line(&mut child);
    assert!(child.wait().unwrap().success());
    assert_eq!(rig.state(&id)["status"], "running");
}

#[test]
fn signals_are_passed_on() {
    let rig = Rig::new();
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
    ] {
        let script =
            format!("trap 'exit 42' {name}; echo ready; while :; do sleep 1000 & wait; done");
        let mut child = rig
            .command(&["run", "--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(first_line(&mut child), "ready");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(code(child.wait().unwrap()), 42, "{name}");
    }
}

#[test]
fn a_bundle_runs_as_with_runc() {
    let rig = Rig::new();
    let bundle = rig.shell("echo \"$0 in $(pwd)\"; exit 6");
    let output = rig.call(&["run", "--bundle", &bundle, "c"]);
    assert_eq!(
        (code(output.status), &output.stdout[..]),
        (6, &b"/bin/sh in /\n"[..])
    );
    let here = rig
        .command(&["run", "c"])
        .current_dir(&bundle)
        .output()
        .unwrap();
    assert_eq!(code(here.status), 6, "the bundle is the working directory");
    let kept = rig.call(&["run", "--keep", "--bundle", &bundle, "c"]);
    assert_eq!(code(kept.status), 6);
    assert_eq!(rig.state("c")["exit_code"], 6);
}

#[test]
fn run_with_bundle_does_not_inherit_callers_environment() {
    let rig = Rig::new();
    let mut process = shell("env");
    process["env"] = serde_json::json!(["PATH=/usr/bin:/bin", "A=b c"]);
    let bundle = rig.bundle("env", &process);
    let output = rig
        .command(&["run", "--bundle", &bundle, "c"])
        .env("SECRET", "of the caller")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<_> = text.lines().filter_map(|l| l.split('=').next()).collect();
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["A", "HOME", "PATH"]);
}

#[test]
fn a_command_that_does_not_exist_is_an_error_and_leaves_nothing() {
    let rig = Rig::new();
    let error = rig.fails(1, &["run", "--name", "c", "--", "no-such-command"]);
    assert!(error.contains("no-such-command"), "{error}");
    rig.fails(1, &["state", "c"]);
}

#[test]
fn preserved_descriptors_arrive_at_their_numbers() {
    let rig = Rig::new();
    fs::write(rig.path("three"), "third").unwrap();
    fs::write(rig.path("four"), "fourth").unwrap();
    let program = env!("CARGO_BIN_EXE_reaper-runtime");
    let script = format!(
        "exec 3<three 4<four 5<three; exec {program} --root root --config config.toml \
         run --preserve-fds 2 -- sh -c 'cat <&3; cat <&4; test -e /proc/self/fd/5 && echo leak'"
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(rig.path("."))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "thirdfourth");
    assert!(
        rig.fails(1, &["run", "--preserve-fds", "1", "--", "true"])
            .contains("descriptor 3")
    );
}
