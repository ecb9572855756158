//! Containers that end, by themselves and by force.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::Pid;
use reaper_exec::{Error, Executor, Signal, Target, procfs};
use reaper_spec::{ExitStatus, ProcessIdentity, Status};

use crate::{
    frozen::Frozen,
    output::capture,
    rig::{Rig, cases},
};

cases! {
    descendants_left_by_init_are_killed_on_its_exit,
    exit_without_waiting_client_is_recorded,
    container_of_killed_monitor_is_killed_and_stopped,
    forced_delete_cleans_up_after_monitor_killed_before_start,
    an_exec_that_was_never_started_is_killed,
    exec_of_missing_program_fails_and_exits_127,
    a_signal_reaches_init,
    a_process_that_cannot_be_killed_now_is_named_and_left,
}

async fn descendants_left_by_init_are_killed_on_its_exit(rig: &Rig) {
    let (stdio, output) = capture();
    let script = "sleep 1000 & sleep 1000 & echo up; exit 3";
    // In the host's pid namespace nothing ends with init by itself.
    let new = rig.container("web", rig.shell(script), stdio, |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 3 });
    assert!(!rig.marked_process_exists());
    assert_eq!(output.all(), "up\n");
    rig.engine.delete(&id, false).await.unwrap();
}

async fn exit_without_waiting_client_is_recorded(rig: &Rig) {
    let (id, mut output) = rig.start("web", "echo up; exit 9").await;
    assert_eq!(output.line(), "up");
    let other = rig.another();
    let exit = other.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 9 });
    assert_eq!(rig.engine.state(&id).await.unwrap().exit, Some(exit));
    rig.engine.delete(&id, false).await.unwrap();
}

/// Kills a monitor with SIGKILL, and waits for its end.
fn kill_monitor(monitor: &ProcessIdentity) {
    let pidfd = procfs::open_pidfd(monitor).unwrap();
    kill(Pid::from_raw(monitor.pid.cast_signed()), NixSignal::SIGKILL).unwrap();
    has_exited(&pidfd);
}

fn has_exited(pidfd: &OwnedFd) {
    let mut wanted = [nix::poll::PollFd::new(
        pidfd.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    nix::poll::poll(&mut wanted, nix::poll::PollTimeout::NONE).unwrap();
}

async fn container_of_killed_monitor_is_killed_and_stopped(rig: &Rig) {
    let (id, mut output) = rig.start("web", "echo up; sleep 1000").await;
    assert_eq!(output.line(), "up");
    let record = rig.engine.state(&id).await.unwrap();
    kill_monitor(&record.monitor.unwrap());
    let ended = rig.engine.state(&id).await.unwrap();
    assert_eq!(ended.status, Status::Stopped);
    assert_eq!(ended.exit.unwrap().status.code(), 137);
    assert!(!procfs::is_alive(&record.process.unwrap()));
    rig.engine.delete(&id, false).await.unwrap();
}

async fn forced_delete_cleans_up_after_monitor_killed_before_start(rig: &Rig) {
    let (stdio, _output) = capture();
    let new = rig.container("web", rig.process(&["sleep", "1000"]), stdio, |_| {});
    let id = new.id.clone();
    let (record, _) = rig.engine.create(new).await.unwrap();
    kill_monitor(&record.monitor.unwrap());
    rig.engine.delete(&id, true).await.unwrap();
    assert!(!procfs::is_alive(&record.process.unwrap()));
    assert!(!fs::exists(rig.engine.root().container(&id).path()).unwrap());
}

async fn an_exec_that_was_never_started_is_killed(rig: &Rig) {
    let (id, _output) = rig.start("web", "sleep 1000").await;
    let executor = rig.engine.executor();
    let (exec, output) = rig.exec(&id, "one", "echo never").await;
    executor.kill(&exec, Signal::KILL, true).await.unwrap();
    let exit = executor.wait(&exec).await.unwrap();
    assert_eq!(exit.status.code(), 137);
    let started = executor.start(&exec).await;
    assert!(matches!(started, Err(Error::Status { .. })), "{started:?}");
    executor.delete(&exec).await.unwrap();
    assert_eq!(output.all(), "");
    let (left, _output) = rig.exec(&id, "two", "echo never").await;
    executor
        .kill(&Target::Init(id.clone()), Signal::KILL, false)
        .await
        .unwrap();
    rig.engine.wait(&id).await.unwrap();
    assert_eq!(executor.wait(&left).await.unwrap().status.code(), 137);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn exec_of_missing_program_fails_and_exits_127(rig: &Rig) {
    let (id, _output) = rig.start("web", "sleep 1000").await;
    let executor = rig.engine.executor();
    let (stdio, output) = capture();
    let request = crate::rig::exec_request(rig.process(&["/nowhere/missing"]), stdio);
    let exec = "one".parse().unwrap();
    executor.exec(&id, &exec, request).await.unwrap();
    let target = Target::Exec(id.clone(), exec);
    let refused = executor.start(&target).await;
    let Err(Error::Execve { message, errno, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(message.contains("/nowhere/missing"), "{message}");
    assert_eq!(errno, libc::ENOENT);
    assert_eq!(executor.wait(&target).await.unwrap().status.code(), 127);
    executor.delete(&target).await.unwrap();
    drop(output);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_signal_reaches_init(rig: &Rig) {
    let (id, mut output) = rig
        .start(
            "web",
            "trap 'exit 5' TERM; echo up; while :; do sleep 1000 & wait; done",
        )
        .await;
    assert_eq!(output.line(), "up");
    let target = Target::Init(id.clone());
    let executor = rig.engine.executor();
    executor.kill(&target, Signal::TERM, false).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 5 });
    rig.engine.delete(&id, false).await.unwrap();
}

async fn a_process_that_cannot_be_killed_now_is_named_and_left(rig: &Rig) {
    for (is_killed, name) in [(false, "web"), (true, "unwatched")] {
        let (id, mut output) = rig.start(name, "echo up; exec sleep 1000").await;
        assert_eq!(output.line(), "up");
        let record = rig.engine.state(&id).await.unwrap();
        let process = record.process.unwrap();
        let Some(frozen) = Frozen::new(&rig.cgroup("frozen"), &process) else {
            rig.engine.delete(&id, true).await.unwrap();
            return;
        };
        if is_killed {
            kill_monitor(&record.monitor.unwrap());
        }
        let began = Instant::now();
        let exit = rig.engine.delete(&id, true).await.unwrap().unwrap();
        // The runtime's own attempts included; containerd waits no longer.
        assert!(began.elapsed() < Duration::from_secs(28), "{began:?}");
        let ExitStatus::Unknown { reason } = exit.status else {
            panic!("it has not ended: {exit:?}");
        };
        assert!(reason.contains(&process.pid.to_string()), "{reason}");
        assert!(procfs::is_alive(&process));
        assert!(!fs::exists(rig.engine.root().container(&id).path()).unwrap());
        let pidfd = procfs::open_pidfd(&process).unwrap();
        drop(frozen);
        has_exited(&pidfd);
        // What was left in them is left as well.
        rig.remove_cgroups(name);
    }
}
