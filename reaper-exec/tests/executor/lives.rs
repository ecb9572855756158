//! From create to delete.

use nix::sys::signal::Signal as NixSignal;
use reaper_exec::{Error, Executor, Signal, Target, engine};
use reaper_spec::{ContainerId, ExitStatus, Resource, Rlimit, Status, User};

use crate::{
    machine::needs_dev_stderr,
    output::capture,
    rig::{Rig, cases},
};

cases! {
    container_lifecycle_from_create_to_delete,
    exit_codes_and_signals_are_exact,
    created_process_has_pid_but_has_not_executed,
    created_process_is_killed_by_the_given_signal,
    a_program_that_cannot_be_executed_is_named,
    a_broken_step_of_create_is_named_and_leaves_nothing,
    process_environment_comes_from_bundle_only,
    credentials_limits_and_directory_are_applied,
    signals_are_default_in_the_workload,
    no_descriptor_leaks_into_the_workload,
    all_waiters_before_and_after_exit_get_the_status,
    create_with_existing_id_is_refused,
    another_engine_can_inspect_and_kill_container,
    a_container_is_frozen_and_thawed,
}

async fn container_lifecycle_from_create_to_delete(rig: &Rig) {
    let (new, output) = rig.shell("one", "echo hello; exit 3");
    let id = new.id.clone();
    let (record, warnings) = rig.engine.create(new).await.unwrap();
    assert_eq!(
        (record.status, warnings),
        (Status::Created, Vec::<String>::new())
    );
    let record = rig.engine.start(&id).await.unwrap();
    assert_eq!(record.status, Status::Running);
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 3 });
    assert_eq!(output.all(), "hello\n");
    let record = rig.engine.state(&id).await.unwrap();
    assert_eq!(
        (record.status, record.exit),
        (Status::Stopped, Some(exit.clone()))
    );
    assert_eq!(rig.engine.delete(&id, false).await.unwrap(), Some(exit));
    let gone = rig.engine.state(&id).await.unwrap_err();
    assert!(matches!(
        gone,
        engine::Error::Store(reaper_state::Error::NotFound { .. })
    ));
}

async fn exit_codes_and_signals_are_exact(rig: &Rig) {
    for code in [0_u8, 1, 7, 127, 128, 137, 255] {
        let (id, _output) = rig.start_shell("code", &format!("exit {code}")).await;
        assert_eq!(
            rig.engine.wait(&id).await.unwrap().status,
            ExitStatus::Exited { code }
        );
        rig.engine.delete(&id, false).await.unwrap();
    }
    for signal in [NixSignal::SIGTERM as i32, NixSignal::SIGKILL as i32, 40] {
        let (id, mut output) = rig.start_shell("signal", "echo up; exec sleep 1000").await;
        assert_eq!(output.line(), "up");
        rig.engine
            .kill(&id, Signal::try_from(signal).unwrap(), false)
            .await
            .unwrap();
        let exit = rig.engine.wait(&id).await.unwrap();
        assert_eq!(
            exit.status,
            ExitStatus::Signaled {
                signal,
                core: false
            }
        );
        assert_eq!(exit.status.code(), 128 + u32::try_from(signal).unwrap());
        rig.engine.delete(&id, false).await.unwrap();
    }
}

async fn created_process_has_pid_but_has_not_executed(rig: &Rig) {
    let file = rig.root.path().with_extension("ran");
    let (new, _output) = rig.shell("gate", &format!("touch {}", file.display()));
    let id = new.id.clone();
    let (record, _) = rig.engine.create(new).await.unwrap();
    let process = record.process.unwrap();
    assert!(reaper_exec::procfs::is_alive(&process));
    assert!(!reaper_exec::procfs::has_execed(process.pid).unwrap());
    assert!(!file.exists());
    rig.engine.start(&id).await.unwrap();
    assert!(rig.engine.wait(&id).await.unwrap().status.success());
    assert!(file.exists());
    std::fs::remove_file(file).unwrap();
    rig.engine.delete(&id, false).await.unwrap();
}

async fn created_process_is_killed_by_the_given_signal(rig: &Rig) {
    for signal in [NixSignal::SIGTERM as i32, NixSignal::SIGKILL as i32] {
        let (new, output) = rig.shell("gated", "echo never");
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        rig.engine
            .kill(&id, Signal::try_from(signal).unwrap(), false)
            .await
            .unwrap();
        let exit = rig.engine.wait(&id).await.unwrap();
        assert_eq!(
            exit.status,
            ExitStatus::Signaled {
                signal,
                core: false
            }
        );
        let refused = rig.engine.start(&id).await.unwrap_err();
        assert!(
            matches!(refused, engine::Error::Transition { .. }),
            "{refused}"
        );
        rig.engine.delete(&id, false).await.unwrap();
        assert_eq!(output.all(), "");
    }
}

async fn a_program_that_cannot_be_executed_is_named(rig: &Rig) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = [
        (
            "/bin/nope".to_owned(),
            "exec /bin/nope: No such file or directory",
            libc::ENOENT,
        ),
        (
            "nope".to_owned(),
            "exec nope: executable file not found in $PATH",
            libc::ENOENT,
        ),
        (
            write("plain", "echo", 0o644),
            "plain (mode 0644, owner 0:0)",
            libc::EACCES,
        ),
        (
            write("garbage", "garbage", 0o755),
            "neither an executable nor a script",
            libc::ENOEXEC,
        ),
        (
            write("script", "#!/bin/nosh -x\n", 0o755),
            "interpreter /bin/nosh",
            libc::ENOENT,
        ),
        (
            write("denied", "#!/etc/passwd\n", 0o755),
            "permission denied to user 0 by /etc/passwd (mode 0644, owner 0:0)",
            libc::EACCES,
        ),
    ];
    for (program, message, expected) in cases {
        let (stdio, output) = capture();
        let new = rig.container("exec", rig.process(&[&program]), stdio);
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        let error = rig.engine.start(&id).await.unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        let engine::Error::Executor(Error::Execve { errno, .. }) = error else {
            panic!("{error}");
        };
        assert_eq!(errno, expected);
        assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Stopped);
        assert_ne!(rig.engine.wait(&id).await.unwrap().status.code(), 0);
        rig.engine.delete(&id, false).await.unwrap();
        assert_eq!(output.all(), "");
    }
}

async fn a_broken_step_of_create_is_named_and_leaves_nothing(rig: &Rig) {
    let (stdio, _output) = capture();
    let mut process = rig.process(&["/bin/true"]);
    process.cwd = "/nowhere/at/all".into();
    let error = rig
        .engine
        .create(rig.container("broken", process, stdio))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    let id = ContainerId::new("broken").unwrap();
    assert!(rig.engine.state(&id).await.is_err());
    assert!(!rig.root.path().join("broken").exists());
}

async fn process_environment_comes_from_bundle_only(rig: &Rig) {
    let (stdio, output) = capture();
    let mut process = rig.process(&["env"]);
    process.env.push("A=b c".to_owned());
    let expected = format!(
        "{}\n",
        [&process.env[..], &["HOME=/root".to_owned()]]
            .concat()
            .join("\n")
    );
    let new = rig.container("env", process, stdio);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    assert_eq!(output.all(), expected);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn credentials_limits_and_directory_are_applied(rig: &Rig) {
    needs_dev_stderr();
    let script = "id -u; id -g; id -G; umask; pwd; ulimit -n; ulimit -Hn; \
        grep NoNewPrivs /proc/self/status; echo err >/dev/stderr; ps -o sid= -p $$ | tr -d ' '; echo $$";
    let (stdio, output) = capture();
    let mut process = rig.process(&["/bin/sh", "-c", script]);
    process.cwd = "/tmp".into();
    process.user = Some(User {
        uid: 1234,
        gid: 2345,
        umask: Some(0o027),
        additional_gids: vec![2345, 3456],
    });
    process.rlimits = vec![Rlimit {
        resource: Resource::OpenFiles,
        soft: 100,
        hard: 200,
    }];
    process.no_new_privileges = true;
    let new = rig.container("user", process, stdio);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    assert!(rig.engine.wait(&id).await.unwrap().status.success());
    let output = output.all();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[..9],
        [
            "1234",
            "2345",
            "2345 3456",
            "0027",
            "/tmp",
            "100",
            "200",
            "NoNewPrivs:\t1",
            "err"
        ]
    );
    assert_eq!(lines[9], lines[10], "a session of its own");
    rig.engine.delete(&id, false).await.unwrap();
}

async fn signals_are_default_in_the_workload(rig: &Rig) {
    let (stdio, output) = capture();
    let process = rig.process(&["sed", "-n", "/^Sig[BI]/p", "/proc/self/status"]);
    let new = rig.container("signals", process, stdio);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    let zero = "0000000000000000";
    assert_eq!(output.all(), format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\n"));
    rig.engine.delete(&id, false).await.unwrap();
}

async fn no_descriptor_leaks_into_the_workload(rig: &Rig) {
    let (id, output) = rig.start_shell("fds", "exec ls /proc/self/fd").await;
    rig.engine.wait(&id).await.unwrap();
    assert_eq!(output.all(), "0\n1\n2\n3\n", "3 is the listing itself");
    rig.engine.delete(&id, false).await.unwrap();
    let (mut new, output) = rig.shell("kept", "cat <&3; exec ls /proc/self/fd");
    new.preserve_fds = vec![
        std::fs::File::open("/proc/sys/kernel/ostype")
            .unwrap()
            .into(),
    ];
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    assert_eq!(output.all(), "Linux\n0\n1\n2\n3\n4\n");
    rig.engine.delete(&id, false).await.unwrap();
}

async fn all_waiters_before_and_after_exit_get_the_status(rig: &Rig) {
    let (new, _output) = rig.shell("wait", "exit 9");
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let target = Target::Init(id.clone());
    let other = rig.another();
    let early = async {
        tokio::join!(
            rig.engine.executor().wait(&target),
            rig.engine.executor().wait(&target),
            other.executor().wait(&target),
            async { rig.engine.start(&id).await.unwrap() },
        )
    };
    let (first, second, third, _) = early.await;
    let late = rig.engine.executor().wait(&target).await;
    for exit in [first, second, third, late] {
        assert_eq!(exit.unwrap().status, ExitStatus::Exited { code: 9 });
    }
    rig.engine.delete(&id, false).await.unwrap();
}

async fn create_with_existing_id_is_refused(rig: &Rig) {
    let (new, _output) = rig.shell("twice", "exit 0");
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let (again, _output) = rig.shell("twice", "exit 0");
    let error = rig.engine.create(again).await.unwrap_err();
    assert!(
        matches!(
            error,
            engine::Error::Store(reaper_state::Error::AlreadyExists { .. })
        ),
        "{error}"
    );
    let refused = rig.engine.delete(&id, false).await.unwrap_err();
    assert!(
        matches!(refused, engine::Error::NotStopped { .. }),
        "{refused}"
    );
    rig.engine.delete(&id, true).await.unwrap();
}

async fn another_engine_can_inspect_and_kill_container(rig: &Rig) {
    let (id, _output) = rig.start_shell("shared", "exec sleep 1000").await;
    let other = rig.another();
    assert_eq!(other.state(&id).await.unwrap().status, Status::Running);
    let pids = other.executor().pids(&id).await.unwrap();
    assert_eq!(pids.len(), 1);
    let stats = other.executor().stats(&id).await.unwrap();
    assert_eq!(stats.processes, 1);
    assert!(stats.memory_bytes > 0);
    other.kill(&id, Signal::TERM, false).await.unwrap();
    assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 143);
    assert_eq!(other.state(&id).await.unwrap().status, Status::Stopped);
    let ended = other.kill(&id, Signal::TERM, false).await.unwrap_err();
    assert!(
        matches!(ended, engine::Error::Executor(Error::Ended(_))),
        "{ended}"
    );
    other.delete(&id, false).await.unwrap();
}

async fn a_container_is_frozen_and_thawed(rig: &Rig) {
    let (id, mut output) = rig
        .start_shell("freeze", "while :; do echo tick; done")
        .await;
    assert_eq!(output.line(), "tick");
    assert_eq!(rig.engine.pause(&id).await.unwrap().status, Status::Paused);
    let refused = rig.engine.pause(&id).await.unwrap_err();
    assert!(refused.to_string().contains("paused"), "{refused}");
    assert_eq!(
        rig.engine.resume(&id).await.unwrap().status,
        Status::Running
    );
    assert_eq!(rig.engine.pause(&id).await.unwrap().status, Status::Paused);
    rig.engine.delete(&id, true).await.unwrap();
}
