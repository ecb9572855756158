//! `exec`.

use std::{fs, process::Stdio, thread};

use nix::sys::{
    signal::{Signal, kill},
    wait::{WaitStatus, waitpid},
};

use crate::rig::{Rig, become_subreaper, code, pid_in, shell};

#[test]
fn exec_returns_exit_code_of_process() {
    let rig = Rig::new();
    rig.running("c");
    for expected in [0, 1, 42, 255] {
        let output = rig.call(&["exec", "c", "sh", "-c", &format!("exit {expected}")]);
        assert_eq!(code(output.status), expected);
    }
    let output = rig.call(&["exec", "c", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(code(output.status), 143);
    assert_eq!(
        rig.state("c")["status"],
        "running",
        "only the exec has ended"
    );
}

#[test]
fn exec_failure_exits_255_with_reason() {
    let rig = Rig::new();
    rig.running("c");
    assert!(
        rig.fails(255, &["exec", "c", "no-such-program"])
            .contains("no-such-program")
    );
    assert!(
        rig.fails(255, &["exec", "other", "true"])
            .contains("does not exist")
    );
    assert!(
        rig.fails(255, &["exec", "--detach", "c", "no-such-program"])
            .contains("no-such")
    );
    let bundle = rig.shell("exit 0");
    rig.ok(&["create", "--bundle", &bundle, "gated"]);
    assert!(
        rig.fails(255, &["exec", "gated", "true"])
            .contains("created")
    );
    rig.ok(&["start", "gated"]);
    rig.ok(&["wait", "gated"]);
    assert!(
        rig.fails(255, &["exec", "gated", "true"])
            .contains("stopped")
    );
}

#[test]
fn exec_inherits_cwd_user_and_env_unless_overridden() {
    let rig = Rig::new();
    let mut process = shell("exec sleep 1000");
    process["cwd"] = "/usr".into();
    process["user"] = serde_json::json!({"uid": 1234, "gid": 5678});
    process["env"]
        .as_array_mut()
        .unwrap()
        .push("FROM=container".into());
    let bundle = rig.bundle("c", &process);
    rig.ok(&["create", "--bundle", &bundle, "c"]);
    rig.quietly(&["start", "c"]);
    let script = "pwd; id -u; id -g; echo $FROM $ADDED";
    assert_eq!(
        rig.ok(&["exec", "c", "sh", "-c", script]),
        "/usr\n1234\n5678\ncontainer\n"
    );
    let told = [
        "exec", "--cwd", "/bin", "-u", "0:0", "-e", "FROM=me", "-e", "ADDED=x", "c",
    ];
    let told: Vec<_> = told.into_iter().chain(["sh", "-c", script]).collect();
    let text = rig.ok(&told);
    assert!(text.ends_with("\n0\n0\nme x\n"), "{text}");

    let file = rig.path("process.json");
    let process = serde_json::json!({"args": ["sh", "-c", "pwd; exit 9"], "cwd": "/",
        "env": ["PATH=/usr/bin:/bin"]});
    fs::write(&file, process.to_string()).unwrap();
    let output = rig.call(&["exec", "--process", file.to_str().unwrap(), "c"]);
    assert_eq!((code(output.status), &output.stdout[..]), (9, &b"/\n"[..]));
}

#[test]
fn concurrent_execs_return_their_own_output_and_code() {
    let rig = Rig::new();
    rig.running("c");
    thread::scope(|scope| {
        for expected in 0..20 {
            let rig = &rig;
            scope.spawn(move || {
                let script = format!("echo {expected}; exit {expected}");
                let output = rig.call(&["exec", "c", "sh", "-c", &script]);
                assert_eq!(code(output.status), expected);
                assert_eq!(output.stdout, format!("{expected}\n").as_bytes());
            });
        }
    });
}

#[test]
fn detached_exec_pid_file_names_process_that_mirrors_exit() {
    become_subreaper();
    let rig = Rig::new();
    rig.running("c");
    let file = rig.path("pid");
    let detach = |script: &str| {
        let args = [
            "exec",
            "--detach",
            "--pid-file",
            file.to_str().unwrap(),
            "c",
            "sh",
            "-c",
            script,
        ];
        rig.quietly(&args);
        pid_in(&file)
    };
    let pid = detach("exit 11");
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 11));
    let pid = detach("kill -USR2 $$");
    assert_eq!(
        waitpid(pid, None).unwrap(),
        WaitStatus::Signaled(pid, Signal::SIGUSR2, false)
    );
    let pid = detach("exec sleep 1000");
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(
        waitpid(pid, None).unwrap(),
        WaitStatus::Signaled(pid, Signal::SIGTERM, false)
    );
    assert_eq!(
        rig.ok(&["ps", "-f", "json", "c"])
            .matches(char::is_numeric)
            .count()
            .min(1),
        1
    );
}

#[test]
fn detached_exec_helper_closes_streams_of_caller() {
    let rig = Rig::new();
    rig.running("c");
    let args = [
        "exec",
        "--detach",
        "c",
        "sh",
        "-c",
        "exec sleep 1000 <&- >&- 2>&-",
    ];
    // Returns when everybody has closed the pipes.
    let output = rig.call(&args);
    assert!(output.status.success());
}

#[test]
fn execs_end_with_the_container() {
    let rig = Rig::new();
    rig.running("c");
    let mut exec = rig
        .command(&["exec", "c", "sh", "-c", "echo ready; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(crate::rig::first_line(&mut exec), "ready");
    rig.ok(&["kill", "c", "KILL"]);
    assert_eq!(code(exec.wait().unwrap()), 137);
    assert_eq!(rig.ok(&["wait", "c"]), "137\n");
}
