//! Operations that meet.

use reaper_exec::{Error, ExecRequest, Executor, Signal, Target, engine};
use reaper_spec::{ContainerId, ExecId, ExitStatus, Status};

use crate::{
    output::capture,
    rig::{Rig, cases, within_a_minute},
};

cases! {
    concurrent_failing_execs_do_not_harm_the_monitor,
    failed_exec_frees_its_id_and_leaves_nothing,
    container_is_stopped_after_failed_start,
    exec_has_exited_after_failed_start,
    a_second_start_is_refused,
    kill_racing_with_start_kills_the_container,
    kills_racing_with_exit_succeed_or_report_ended,
    exec_racing_with_exit_is_refused,
    second_delete_finds_nothing,
    a_frozen_container_can_be_killed,
    nothing_starts_in_a_frozen_container,
    pause_racing_with_exit_is_answered,
    cpu_time_never_falls,
}

fn exec_request(rig: &Rig, args: &[&str]) -> ExecRequest {
    ExecRequest::new(rig.process(args)).with_stdio(capture().0)
}

async fn failing_exec(rig: &Rig, id: &ContainerId, exec: &str) -> Error {
    let mut request = exec_request(rig, &["true"]);
    request.process.cwd = "/nowhere/at/all".into();
    let exec = ExecId::new(exec).unwrap();
    rig.engine
        .executor()
        .exec(id, &exec, request)
        .await
        .unwrap_err()
}

async fn concurrent_failing_execs_do_not_harm_the_monitor(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    for _ in 0..20 {
        let (a, b, c, d) = tokio::join!(
            failing_exec(rig, &id, "a"),
            failing_exec(rig, &id, "b"),
            failing_exec(rig, &id, "c"),
            failing_exec(rig, &id, "d"),
        );
        for error in [a, b, c, d] {
            assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        }
    }
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn failed_exec_frees_its_id_and_leaves_nothing(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    failing_exec(rig, &id, "same").await;
    let (target, _output) = rig.exec_shell(&id, "same", "exit 3").await;
    assert_eq!(rig.exit_code(&target).await, 3);
    rig.engine.executor().delete(&target).await.unwrap();
    let leaves = || {
        let entries = std::fs::read_dir(rig.cgroup("main").unwrap()).unwrap();
        let folders = entries
            .map(Result::unwrap)
            .filter(|e| e.file_type().unwrap().is_dir());
        folders.map(|entry| entry.file_name()).collect::<Vec<_>>()
    };
    if Rig::has_cgroups() {
        assert_eq!(leaves(), ["init"]);
    }
    rig.engine.delete(&id, true).await.unwrap();
}

async fn container_is_stopped_after_failed_start(rig: &Rig) {
    for _ in 0..30 {
        let (stdio, _output) = capture();
        let new = rig.container("failed", rig.process(&["/bin/nope"]), stdio);
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        let other = rig.another();
        rig.engine
            .executor()
            .start(&Target::Init(id.clone()))
            .await
            .unwrap_err();
        let seen = other.executor().state(&id).await.unwrap();
        assert_eq!(seen.status, Status::Stopped);
        rig.engine.delete(&id, false).await.unwrap();
    }
}

async fn exec_has_exited_after_failed_start(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    for _ in 0..30 {
        let exec = ExecId::new("e").unwrap();
        let request = exec_request(rig, &["/bin/nope"]);
        rig.engine
            .executor()
            .exec(&id, &exec, request)
            .await
            .unwrap();
        let target = Target::Exec(id.clone(), exec);
        rig.engine.executor().start(&target).await.unwrap_err();
        let exit = rig
            .engine
            .executor()
            .delete(&target)
            .await
            .unwrap()
            .unwrap();
        assert_ne!(exit.status.code(), 0);
    }
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_second_start_is_refused(rig: &Rig) {
    let (new, _output) = rig.shell("twice", "exec sleep 1000");
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let target = Target::Init(id.clone());
    let other = rig.another();
    let (a, b) = tokio::join!(
        rig.engine.executor().start(&target),
        other.executor().start(&target)
    );
    let refused = [a, b]
        .into_iter()
        .find_map(Result::err)
        .expect("one of them is second");
    assert_eq!(
        refused.to_string(),
        "cannot start container twice: it is running"
    );
    rig.engine.delete(&id, true).await.unwrap();
}

async fn kill_racing_with_start_kills_the_container(rig: &Rig) {
    for _ in 0..20 {
        let (new, _output) = rig.shell("race", "exec sleep 1000");
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        let other = rig.another();
        let (started, killed) =
            tokio::join!(rig.engine.start(&id), other.kill(&id, Signal::KILL, false));
        killed.unwrap();
        let exit = rig.engine.wait(&id).await.unwrap();
        assert_eq!(
            exit.status,
            ExitStatus::Signaled {
                signal: 9,
                core: false
            }
        );
        if let Err(error) = started {
            let known = matches!(
                error,
                engine::Error::Executor(Error::Ended(_) | Error::Status { .. })
                    | engine::Error::Transition { .. }
            );
            assert!(known, "{error}");
        }
        assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Stopped);
        rig.engine.delete(&id, false).await.unwrap();
    }
}

async fn kills_racing_with_exit_succeed_or_report_ended(rig: &Rig) {
    let script = "for i in $(seq 100); do sleep 1000 & done; echo up; wait";
    let (id, mut output) = rig.start_shell("many", script).await;
    assert_eq!(output.line(), "up");
    let target = Target::Init(id.clone());
    let others = [(); 3].map(|()| rig.another());
    let kill = |engine: usize| others[engine].executor().kill(&target, Signal::KILL, true);
    let (a, b, c) = tokio::join!(kill(0), kill(1), kill(2));
    let mut reached = 0;
    for killed in [a, b, c] {
        match killed {
            Ok(()) => reached += 1,
            // It came when all was over.
            Err(error) => assert!(matches!(error, Error::Ended(_)), "{error}"),
        }
    }
    assert!(reached > 0, "somebody has killed it");
    rig.engine.wait(&id).await.unwrap();
    let late = others[0]
        .executor()
        .kill(&target, Signal::KILL, true)
        .await
        .unwrap_err();
    assert!(matches!(late, Error::Ended(_)), "{late}");
    rig.engine.delete(&id, false).await.unwrap();
}

async fn exec_racing_with_exit_is_refused(rig: &Rig) {
    let script = "for i in $(seq 200); do sleep 1000 & done; echo up; wait";
    let (id, mut output) = rig.start_shell("many", script).await;
    assert_eq!(output.line(), "up");
    rig.engine.kill(&id, Signal::KILL, false).await.unwrap();
    for number in 0.. {
        let exec = ExecId::new(format!("e{number}")).unwrap();
        let request = exec_request(rig, &["sleep", "1000"]);
        if let Err(error) = rig.engine.executor().exec(&id, &exec, request).await {
            let known = matches!(
                error,
                Error::Status {
                    status: Status::Stopped,
                    ..
                } | Error::Setup { .. }
            );
            assert!(known, "{error}");
            break;
        }
    }
    // Without end if the end waited for each new one.
    let ended = within_a_minute(rig.engine.wait(&id)).await;
    assert_eq!(ended.unwrap().status.code(), 137);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn second_delete_finds_nothing(rig: &Rig) {
    let (id, _output) = rig.start_shell("gone", "exit 3").await;
    rig.engine.wait(&id).await.unwrap();
    let target = Target::Init(id.clone());
    let other = rig.another();
    let (a, b) = tokio::join!(
        rig.engine.executor().delete(&target),
        other.executor().delete(&target)
    );
    assert!(a.as_ref().unwrap().is_some() || b.as_ref().unwrap().is_some());
    assert_eq!(other.executor().delete(&target).await.unwrap(), None);
    let exec = Target::Exec(id.clone(), ExecId::new("never").unwrap());
    assert_eq!(other.executor().delete(&exec).await.unwrap(), None);
    rig.engine.delete(&id, false).await.unwrap();
    let again = rig.engine.delete(&id, true).await.unwrap_err();
    assert!(
        matches!(
            again,
            engine::Error::Store(reaper_state::Error::NotFound { .. })
        ),
        "{again}"
    );
}

async fn a_frozen_container_can_be_killed(rig: &Rig) {
    for all in [false, true] {
        let (id, mut output) = rig
            .start_shell("frozen", "sleep 1000 & echo up; exec sleep 1000")
            .await;
        assert_eq!(output.line(), "up");
        assert_eq!(rig.engine.pause(&id).await.unwrap().status, Status::Paused);
        rig.engine.kill(&id, Signal::KILL, all).await.unwrap();
        assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 137);
        assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Stopped);
        let refused = rig.engine.resume(&id).await.unwrap_err();
        assert!(refused.to_string().contains("stopped"), "{refused}");
        rig.engine.delete(&id, false).await.unwrap();
    }
}

async fn nothing_starts_in_a_frozen_container(rig: &Rig) {
    let (id, _output) = rig.start_shell("frozen", "exec sleep 1000").await;
    let exec = ExecId::new("early").unwrap();
    let request = exec_request(rig, &["true"]);
    rig.engine
        .executor()
        .exec(&id, &exec, request)
        .await
        .unwrap();
    let target = Target::Exec(id.clone(), exec);
    rig.engine.pause(&id).await.unwrap();
    let refused = rig.engine.executor().start(&target).await.unwrap_err();
    assert!(refused.to_string().ends_with("it is paused"), "{refused}");
    let late = ExecId::new("late").unwrap();
    let request = exec_request(rig, &["true"]);
    let refused = rig
        .engine
        .executor()
        .exec(&id, &late, request)
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot exec in container frozen: it is paused"
    );
    rig.engine.resume(&id).await.unwrap();
    rig.engine.executor().start(&target).await.unwrap();
    assert!(
        rig.engine
            .executor()
            .wait(&target)
            .await
            .unwrap()
            .status
            .success()
    );
    rig.engine.delete(&id, true).await.unwrap();
}

async fn pause_racing_with_exit_is_answered(rig: &Rig) {
    for _ in 0..10 {
        let script = "for i in $(seq 20); do sleep 1000 & done; echo up; wait";
        let (id, mut output) = rig.start_shell("pause", script).await;
        assert_eq!(output.line(), "up");
        let other = rig.another();
        let (paused, killed) = tokio::join!(
            rig.engine.executor().pause(&id),
            other.kill(&id, Signal::KILL, true)
        );
        killed.unwrap();
        if let Err(error) = paused {
            assert!(
                matches!(error, Error::Ended(_) | Error::Status { .. }),
                "{error}"
            );
        }
        let ended = within_a_minute(rig.engine.wait(&id)).await;
        assert_eq!(ended.unwrap().status.code(), 137);
        rig.engine.delete(&id, false).await.unwrap();
    }
}

async fn cpu_time_never_falls(rig: &Rig) {
    let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let (id, mut output) = rig
        .start_shell(
            "busy",
            &format!("({busy}; echo used); wait; echo reaped; exec sleep 1000"),
        )
        .await;
    assert_eq!(output.line(), "used");
    let before = rig.engine.executor().stats(&id).await.unwrap();
    assert_eq!(output.line(), "reaped");
    let after = rig.engine.executor().stats(&id).await.unwrap();
    assert!(
        after.cpu_user_ns >= before.cpu_user_ns,
        "{before:?} {after:?}"
    );
    assert!(after.cpu_user_ns >= 50_000_000, "{after:?}");
    assert_eq!(after.processes, 1);
    rig.engine.delete(&id, true).await.unwrap();
}
