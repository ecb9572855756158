//! Exec'd processes.

use reaper_exec::{Error, ExecRequest, Executor, Signal, Target};
use reaper_spec::{CgroupMode, ExecId, ExitStatus, Status};

use crate::{
    output::capture,
    rig::{Rig, cases},
};

cases! {
    an_exec_has_its_own_exit_and_output,
    exec_ids_are_unique_and_free_again,
    an_exec_is_refused_unless_the_container_runs,
    failed_exec_start_gives_reason_and_is_deletable,
    killing_an_exec_kills_what_it_started_and_nothing_else,
    background_process_of_exec_lives_until_init_exits,
    exits_of_execs_come_before_the_exit_of_init,
    a_hundred_execs_at_once,
    exec_with_kill_on_disconnect_dies_with_its_client,
    kill_on_disconnect_without_cgroup_kills_descendants,
}

async fn an_exec_has_its_own_exit_and_output(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let (target, output) = rig.exec_shell(&id, "e1", "echo from exec; exit 5").await;
    let exit = rig.engine.executor().wait(&target).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 5 });
    assert_eq!(output.all(), "from exec\n");
    assert_eq!(
        rig.engine.executor().wait(&target).await.unwrap(),
        exit,
        "a latch"
    );
    assert_eq!(
        rig.engine.executor().delete(&target).await.unwrap(),
        Some(exit)
    );
    assert!(matches!(
        rig.engine.executor().wait(&target).await,
        Err(Error::NotFound(_))
    ));
    rig.engine.delete(&id, true).await.unwrap();
}

async fn exec_ids_are_unique_and_free_again(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let (target, _out) = rig.exec_shell(&id, "same", "exec sleep 1000").await;
    let (stdio, _out) = capture();
    let request = ExecRequest::new(rig.process(&["true"])).with_stdio(stdio);
    let exec = ExecId::new("same").unwrap();
    let taken = rig
        .engine
        .executor()
        .exec(&id, &exec, request)
        .await
        .unwrap_err();
    assert!(matches!(taken, Error::AlreadyExists(_)), "{taken}");
    let running = rig.engine.executor().delete(&target).await.unwrap_err();
    assert!(
        matches!(
            running,
            Error::Status {
                status: Status::Running,
                ..
            }
        ),
        "{running}"
    );
    rig.engine
        .executor()
        .kill(&target, Signal::KILL, false)
        .await
        .unwrap();
    rig.engine.executor().wait(&target).await.unwrap();
    rig.engine.executor().delete(&target).await.unwrap();
    let (again, _out) = rig.exec_shell(&id, "same", "exit 1").await;
    assert_eq!(rig.exit_code(&again).await, 1);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn an_exec_is_refused_unless_the_container_runs(rig: &Rig) {
    let (new, _output) = rig.shell("gated", "exit 0");
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let exec = ExecId::new("e").unwrap();
    let request = || {
        let process = rig.process(&["true"]);
        ExecRequest::new(process).with_stdio(capture().0)
    };
    let refused = rig
        .engine
        .executor()
        .exec(&id, &exec, request())
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot exec in container gated: it is created"
    );
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    let refused = rig
        .engine
        .executor()
        .exec(&id, &exec, request())
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot exec in container gated: it is stopped"
    );
    rig.engine.delete(&id, false).await.unwrap();
}

async fn failed_exec_start_gives_reason_and_is_deletable(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let exec = ExecId::new("bad").unwrap();
    let process = rig.process(&["/bin/nope"]);
    let request = ExecRequest::new(process).with_stdio(capture().0);
    rig.engine
        .executor()
        .exec(&id, &exec, request)
        .await
        .unwrap();
    let target = Target::Exec(id.clone(), exec);
    let error = rig.engine.executor().start(&target).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "exec /bin/nope: No such file or directory"
    );
    assert_ne!(rig.exit_code(&target).await, 0);
    rig.engine.executor().delete(&target).await.unwrap();
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn killing_an_exec_kills_what_it_started_and_nothing_else(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let (other, _out) = rig.exec_shell(&id, "other", "exec sleep 1000").await;
    let script = if Rig::has_cgroups() {
        "sh -c 'setsid sleep 1000 & echo up' ; wait; exec sleep 1000"
    } else {
        // Descendants are found then, and what has become the monitor's child is not.
        "setsid sleep 1000 & echo up; exec sleep 1000"
    };
    let (target, mut output) = rig.exec_shell(&id, "tree", script).await;
    assert_eq!(output.line(), "up");
    rig.engine
        .executor()
        .kill(&target, Signal::KILL, false)
        .await
        .unwrap();
    assert_eq!(rig.exit_code(&target).await, 137);
    assert_eq!(
        output.all(),
        "",
        "the pipe closes when all its holders are dead"
    );
    let pids = rig.engine.executor().pids(&id).await.unwrap();
    // One that has closed its pipe may have a moment left.
    for entry in pids
        .iter()
        .filter(|entry| entry.exec.as_ref() == target.exec_id())
    {
        if let Ok(process) = reaper_exec::procfs::identify(entry.pid) {
            crate::crashes::has_ended(&process).await;
        }
    }
    assert!(
        pids.iter()
            .any(|entry| entry.exec.as_ref() == other.exec_id()),
        "{pids:?}"
    );
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn background_process_of_exec_lives_until_init_exits(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let (target, mut output) = rig
        .exec_shell(&id, "bg", "setsid sleep 1000 & echo $!")
        .await;
    let pid: u32 = output.line().parse().unwrap();
    assert!(
        rig.engine
            .executor()
            .wait(&target)
            .await
            .unwrap()
            .status
            .success()
    );
    rig.engine.executor().delete(&target).await.unwrap();
    let left = reaper_exec::procfs::identify(pid).unwrap();
    assert!(reaper_exec::procfs::is_alive(&left));
    rig.engine.kill(&id, Signal::KILL, false).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    assert!(!reaper_exec::procfs::is_alive(&left));
    rig.engine.delete(&id, false).await.unwrap();
}

async fn exits_of_execs_come_before_the_exit_of_init(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let (target, _out) = rig.exec_shell(&id, "e", "exec sleep 1000").await;
    rig.engine.kill(&id, Signal::KILL, false).await.unwrap();
    let init = rig.engine.wait(&id).await.unwrap();
    let exec = rig.engine.executor().wait(&target).await.unwrap();
    assert_eq!(
        exec.status,
        ExitStatus::Signaled {
            signal: 9,
            core: false
        }
    );
    assert!(exec.at <= init.at || exec.status.code() == 137);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn a_hundred_execs_at_once(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let mut running = Vec::new();
    for number in 0..100 {
        running.push(
            rig.exec_shell(&id, &format!("e{number}"), &format!("exit {number}"))
                .await,
        );
    }
    for (number, (target, _)) in running.iter().enumerate() {
        let exit = rig.engine.executor().wait(target).await.unwrap();
        assert_eq!(exit.status.code() as usize, number);
        rig.engine.executor().delete(target).await.unwrap();
    }
    rig.engine.delete(&id, true).await.unwrap();
}

async fn exec_with_kill_on_disconnect_dies_with_its_client(rig: &Rig) {
    tied_exec_dies(rig, true).await;
}

/// As where there is cgroup v1 alone.
async fn kill_on_disconnect_without_cgroup_kills_descendants(rig: &Rig) {
    tied_exec_dies(rig, false).await;
}

async fn tied_exec_dies(rig: &Rig, cgroup: bool) {
    let (mut new, _output) = rig.shell("main", "exec sleep 1000");
    new.monitor.cgroups = if cgroup {
        CgroupMode::Enforce
    } else {
        CgroupMode::Off
    };
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let other = rig.another();
    let (stdio, mut output) = capture();
    let script = "setsid sleep 1000 & echo up; exec sleep 1000";
    let request = ExecRequest::new(rig.process(&["/bin/sh", "-c", script]))
        .with_stdio(stdio)
        .with_kill_on_disconnect(true);
    let exec = ExecId::new("tied").unwrap();
    other.executor().exec(&id, &exec, request).await.unwrap();
    let target = Target::Exec(id.clone(), exec);
    other.executor().start(&target).await.unwrap();
    assert_eq!(output.line(), "up");
    let waiting = rig.engine.executor().wait(&target);
    let (exit, ()) = tokio::join!(waiting, async { drop(other) });
    assert_eq!(exit.unwrap().status.code(), 137);
    assert_eq!(output.all(), "", "what it started is dead too");
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
    rig.engine.delete(&id, true).await.unwrap();
}
