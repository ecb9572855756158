//! Loggers: containerd's protocol for `binary://`.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use reaper_exec::io::{IoError, LoggerLimits, StandardBinder, StreamTarget};

use crate::support::{Ask, Scratch, forking, uri, writer};

const NULL: StreamTarget = StreamTarget::Null;
const LONG: Duration = Duration::from_secs(25);
const SHORT: Duration = Duration::from_millis(50);

/// A logger, and its URI with the folder as an argument.
fn logger(folder: &Scratch, script: &str) -> StreamTarget {
    let program = folder.join("logger");
    let text = format!("#!/bin/sh\ncd \"$2\" || exit 9\n{script}\n");
    // No child has a copy of the descriptor, or the script could not be executed (ETXTBSY).
    forking(|| fs::write(&program, text)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    uri(format!(
        "binary://{}?dir={}&k=a+b",
        program.display(),
        folder.path().display()
    ))
}

fn binder(ready: Duration, finish: Duration, terminate: Duration) -> StandardBinder {
    StandardBinder::new().logger_limits(LoggerLimits {
        ready,
        finish,
        terminate,
    })
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const COLLECT: &str = "cat <&3 >out 5>&- & cat <&4 >err 5>&- & exec 5>&-; wait";

#[test]
fn one_logger_gets_both_outputs_and_container_identity() {
    let folder = Scratch::new();
    let target = logger(
        &folder,
        "env >env; echo \"$*\" >args; ls /proc/self/fd >fds; grep -h SigBlk /proc/self/status >mask
         cat <&3 >out 5>&- & cat <&4 >err 5>&- & exec 5>&-; wait",
    );
    let ask = Ask::streams(NULL, target.clone(), target);
    let mut monitor = ask.try_bind(&binder(LONG, LONG, LONG)).unwrap();
    assert_eq!(monitor.bound.helpers().len(), 1);
    monitor.spawn("echo out; echo err >&2");
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();
    assert_eq!(monitor.helpers, [0], "it ends with its input");
    assert_eq!(text(&folder.join("out")), "out\n");
    assert_eq!(text(&folder.join("err")), "err\n");
    assert_eq!(
        text(&folder.join("args")),
        format!("dir {} k a b\n", folder.path().display())
    );
    let env = text(&folder.join("env"));
    assert!(env.contains("CONTAINER_ID=web-1\n") && env.contains("CONTAINER_NAMESPACE=k8s.io\n"));
    // 3, 4, 5, and the folder that ls reads (6).
    assert_eq!(
        text(&folder.join("fds")),
        "0\n1\n2\n3\n4\n5\n6\n",
        "nothing else leaks into it"
    );
    assert_eq!(text(&folder.join("mask")), "SigBlk:\t0000000000000000\n");
}

#[test]
fn a_logger_of_the_error_output_alone_reads_it_from_descriptor_4() {
    let folder = Scratch::new();
    let ask = Ask::streams(NULL, NULL, logger(&folder, COLLECT));
    let mut monitor = ask.try_bind(&binder(LONG, LONG, LONG)).unwrap();
    monitor.spawn("echo out; echo err >&2");
    monitor.run_to_exit();
    monitor.finish();
    assert_eq!(
        (text(&folder.join("out")), text(&folder.join("err"))),
        (String::new(), "err\n".into())
    );
}

#[test]
fn a_logger_gets_sigterm_and_then_sigkill() {
    let folder = Scratch::new();
    // It ignores the end of its input, and SIGTERM.
    let target = logger(
        &folder,
        "trap 'echo >terminated' TERM; mkfifo never; exec 5>&-
         while :; do read line <>never; done",
    );
    let mut monitor = Ask::output(target)
        .try_bind(&binder(LONG, SHORT, SHORT))
        .unwrap();
    monitor.spawn("echo x");
    monitor.run_to_exit();
    monitor.finish();
    assert_eq!(monitor.helpers, [128 + libc::SIGKILL]);
    assert!(monitor.bound.helpers().is_empty() && monitor.bound.deadline().is_none());
}

#[test]
fn a_logger_that_obeys_sigterm_is_not_killed() {
    let folder = Scratch::new();
    let target = logger(
        &folder,
        "trap 'echo >terminated; exit 7' TERM; mkfifo never; exec 5>&-
         cat <&3; read line <>never",
    );
    let mut monitor = Ask::output(target)
        .try_bind(&binder(LONG, SHORT, LONG))
        .unwrap();
    monitor.spawn("echo x");
    monitor.run_to_exit();
    monitor.finish();
    assert_eq!(monitor.helpers, [7]);
    assert!(folder.join("terminated").exists());
}

#[test]
fn logger_that_is_never_ready_is_killed_and_reported() {
    let folder = Scratch::new();
    let target = logger(&folder, "echo $$ >pid; mkfifo never; read line <>never");
    // Long enough for the script to have noted its pid.
    let Err(error) = Ask::output(target).try_bind(&binder(Duration::from_secs(2), LONG, LONG))
    else {
        panic!("bound")
    };
    assert!(matches!(error, IoError::LoggerNotReady { .. }), "{error}");
    assert!(
        error.to_string().contains("logger was not ready"),
        "{error}"
    );
    let pid = text(&folder.join("pid"));
    assert!(
        !Path::new("/proc").join(pid.trim()).exists(),
        "killed and reaped"
    );
}

#[test]
fn logger_is_ended_when_another_stream_cannot_be_opened() {
    let folder = Scratch::new();
    let target = logger(&folder, COLLECT);
    let started = Instant::now();
    let ask = Ask::streams(NULL, target, uri(folder.join("missing")));
    let Err(error) = ask.try_bind(&binder(LONG, LONG, LONG)) else {
        panic!("bound")
    };
    assert!(error.to_string().contains("missing"), "{error}");
    let name = folder.path().to_str().unwrap();
    let named = |process: &Path| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(name)
    };
    // Of the logger itself: what its shell had forked by then reads the end of its input.
    let children = reaper_exec::procfs::children(std::process::id()).unwrap();
    let mut children = children
        .iter()
        .map(|pid| Path::new("/proc").join(pid.to_string()));
    assert!(!children.any(|child| named(&child)), "killed");
    assert!(started.elapsed() < LONG, "and not waited for");
}

#[test]
fn a_logger_that_cannot_be_executed_is_named() {
    let folder = Scratch::new();
    let missing = folder.join("no-logger");
    let error = Ask::output(uri(format!("binary://{}", missing.display()))).refused();
    assert!(
        error.contains("no-logger") && error.contains("No such file"),
        "{error}"
    );
}

#[test]
fn process_whose_logger_has_ended_gets_epipe_instead_of_hanging() {
    let folder = Scratch::new();
    let input = folder.fifo("in");
    let target = logger(&folder, "exit 5");
    let ask = Ask::streams(uri(&input), target, NULL);
    let mut monitor = ask.try_bind(&binder(LONG, LONG, LONG)).unwrap();
    // More than a pipe takes.
    monitor.spawn("trap '' PIPE; read line; head -c 200000 /dev/zero 2>/dev/null || exit 3");
    while monitor.helpers.is_empty() {
        monitor.turn(&[]);
    }
    writer(&input).write_all(b"go\n").unwrap();
    assert_eq!(monitor.run_to_exit(), 3);
    assert!(monitor.bound.is_finished());
    assert_eq!(monitor.helpers, [5]);
}

#[test]
fn a_logger_takes_a_terminals_output() {
    let folder = Scratch::new();
    let ask = Ask::terminal(NULL, logger(&folder, COLLECT));
    let mut monitor = ask.try_bind(&binder(LONG, LONG, LONG)).unwrap();
    monitor.spawn("seq 20000");
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();
    let wanted: String = (1..=20000).map(|line| format!("{line}\r\n")).collect();
    assert!(text(&folder.join("out")) == wanted, "the output differs");
    assert_eq!(monitor.helpers, [0]);
}

#[test]
fn a_logger_that_reads_nothing_does_not_hold_a_terminal_for_ever() {
    let folder = Scratch::new();
    let target = logger(&folder, "mkfifo never; exec 5>&-; read line <>never");
    let mut monitor = Ask::terminal(NULL, target)
        .try_bind(&binder(LONG, SHORT, SHORT))
        .unwrap();
    // More than the pipe takes, less than the pipe, the buffer and the terminal take.
    monitor.spawn("stty -opost; head -c 80000 /dev/zero");
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();
    assert_eq!(monitor.helpers, [128 + libc::SIGTERM]);
}
