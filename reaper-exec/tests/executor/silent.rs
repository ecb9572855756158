//! Monitors that do not answer: stopped, or without a free descriptor.

use std::{fs, os::unix::fs::symlink};

use nix::{
    sys::{
        signal::{Signal as NixSignal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use reaper_exec::{Error, Executor as _, Signal, Target, engine, io::StdioRequest};
use reaper_spec::{ContainerId, ExecId, ExitStatus, ProcessIdentity, Status};
use rustix::process::{Resource, Rlimit, prlimit};

use crate::{
    crashes::has_ended,
    frozen::Frozen,
    rig::{Rig, cases},
};

cases! {
    a_stopped_monitor_holds_up_no_state_no_figures_and_no_list_of_processes,
    a_stopped_monitor_refuses_an_exec_by_name,
    a_signal_reaches_the_process_of_a_stopped_monitor,
    sigkill_ends_a_container_whose_monitor_is_stopped,
    a_container_whose_monitor_is_stopped_can_be_deleted_by_force,
    a_container_that_ended_before_its_monitor_was_stopped_can_be_deleted,
    sigkill_ends_an_exec_whose_monitor_is_stopped,
    a_monitor_that_goes_on_is_asked_again,
    a_monitor_without_a_free_descriptor_answers_when_there_is_one,
    a_container_whose_creator_ends_before_the_start_is_ended,
    a_record_that_is_no_file_blocks_nothing,
    a_process_that_cannot_be_killed_now_is_named_and_left,
}

fn pid(process: &ProcessIdentity) -> Pid {
    Pid::from_raw(i32::try_from(process.pid).unwrap())
}

fn target(id: &ContainerId) -> Target {
    Target::Init(id.clone())
}

/// A container that runs until it is killed, its monitor, which is stopped, and its init process.
async fn stopped(rig: &Rig, id: &str) -> (ContainerId, ProcessIdentity, ProcessIdentity) {
    let (id, _output) = rig.start_shell(id, "exec sleep 1000").await;
    let record = rig.engine.state(&id).await.unwrap();
    let monitor = record.monitor.unwrap();
    kill(pid(&monitor), NixSignal::SIGSTOP).unwrap();
    (id, monitor, record.process.unwrap())
}

async fn a_stopped_monitor_holds_up_no_state_no_figures_and_no_list_of_processes(rig: &Rig) {
    let (id, monitor, process) = stopped(rig, "web").await;
    let executor = rig.engine.executor();
    let stats = executor.stats(&id).await.unwrap();
    assert_eq!(stats.processes, 1, "{stats:?}");
    assert!(stats.memory_bytes > 0, "{stats:?}");
    let pids = executor.pids(&id).await.unwrap();
    assert_eq!(
        pids.iter().map(|entry| entry.pid).collect::<Vec<_>>(),
        [process.pid]
    );
    let (record, reason) = rig.engine.known_state(&id).await.unwrap();
    assert_eq!(record.status, Status::Running);
    let reason = reason.unwrap().to_string();
    let expected = format!(
        "the monitor of container web (process {}) does not",
        monitor.pid
    );
    assert!(reason.starts_with(&expected), "{reason}");
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_stopped_monitor_refuses_an_exec_by_name(rig: &Rig) {
    let (id, ..) = stopped(rig, "web").await;
    let exec = ExecId::new("shell").unwrap();
    let request = reaper_exec::ExecRequest::new(rig.process(&["true"]));
    let made = rig.engine.executor().exec(&id, &exec, request).await;
    assert!(matches!(made, Err(Error::Unresponsive { .. })), "{made:?}");
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_signal_reaches_the_process_of_a_stopped_monitor(rig: &Rig) {
    let (id, monitor, process) = stopped(rig, "web").await;
    rig.engine.kill(&id, Signal::TERM, false).await.unwrap();
    has_ended(&process).await;
    kill(pid(&monitor), NixSignal::SIGCONT).unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    let ended = matches!(exit.status, ExitStatus::Signaled { signal: 15, .. });
    assert!(ended, "{exit:?}");
    rig.engine.delete(&id, false).await.unwrap();
}

async fn sigkill_ends_a_container_whose_monitor_is_stopped(rig: &Rig) {
    if !Rig::has_cgroups() {
        return;
    }
    let (id, monitor, process) = stopped(rig, "web").await;
    let waiting = rig.another();
    let (exit, killed) = tokio::join!(waiting.wait(&id), rig.engine.kill(&id, Signal::KILL, false));
    killed.unwrap();
    assert_eq!(exit.unwrap().status.code(), 137);
    has_ended(&process).await;
    has_ended(&monitor).await;
    let record = rig.engine.state(&id).await.unwrap();
    assert_eq!(record.status, Status::Stopped);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn a_container_whose_monitor_is_stopped_can_be_deleted_by_force(rig: &Rig) {
    let (id, monitor, process) = stopped(rig, "web").await;
    let refused = rig.engine.delete(&id, false).await.unwrap_err();
    assert!(matches!(refused, engine::Error::NotStopped { .. }));
    // As another program, which has not seen the monitor answer.
    let exit = rig.another().delete(&id, true).await.unwrap();
    assert_eq!(exit.unwrap().status.code(), 137);
    has_ended(&monitor).await;
    if Rig::has_cgroups() {
        has_ended(&process).await;
    }
}

async fn a_container_that_ended_before_its_monitor_was_stopped_can_be_deleted(rig: &Rig) {
    let (id, _output) = rig.start_shell("web", "exit 3").await;
    rig.engine.wait(&id).await.unwrap();
    let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
    kill(pid(&monitor), NixSignal::SIGSTOP).unwrap();
    let exit = rig.engine.delete(&id, false).await.unwrap();
    assert_eq!(exit.unwrap().status.code(), 3);
    has_ended(&monitor).await;
}

async fn sigkill_ends_an_exec_whose_monitor_is_stopped(rig: &Rig) {
    if !Rig::has_cgroups() {
        return;
    }
    let (id, _output) = rig.start_shell("web", "exec sleep 1000").await;
    let (exec, _output) = rig.exec_shell(&id, "shell", "exec sleep 1000").await;
    let executor = rig.engine.executor();
    let pids = executor.pids(&id).await.unwrap();
    let found = pids
        .iter()
        .find(|entry| entry.exec.as_ref() == exec.exec_id());
    let process = reaper_exec::procfs::identify(found.unwrap().pid).unwrap();
    let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
    kill(pid(&monitor), NixSignal::SIGSTOP).unwrap();
    executor.kill(&exec, Signal::KILL, true).await.unwrap();
    has_ended(&process).await;
    kill(pid(&monitor), NixSignal::SIGCONT).unwrap();
    assert_eq!(executor.wait(&exec).await.unwrap().status.code(), 137);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_monitor_that_goes_on_is_asked_again(rig: &Rig) {
    let (id, monitor, _) = stopped(rig, "web").await;
    let (_, reason) = rig.engine.known_state(&id).await.unwrap();
    assert!(reason.is_some());
    kill(pid(&monitor), NixSignal::SIGCONT).unwrap();
    // An action has the time that a slow machine needs.
    rig.engine.kill(&id, Signal::TERM, false).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status.code(), 143);
    rig.engine.delete(&id, false).await.unwrap();
}

/// The limit of open files of a process, from outside.
fn limit_files(process: &ProcessIdentity, current: u64) {
    let pid = rustix::process::Pid::from_raw(pid(process).as_raw());
    let maximum = Some(4096);
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

async fn a_monitor_without_a_free_descriptor_answers_when_there_is_one(rig: &Rig) {
    let (id, _output) = rig.start_shell("web", "exec sleep 1000").await;
    let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
    for limit in [3, 0] {
        limit_files(&monitor, limit);
        let other = rig.another();
        let (record, reason) = other.known_state(&id).await.unwrap();
        assert_eq!(record.status, Status::Running);
        assert!(reason.is_some(), "it cannot be asked with {limit} files");
        limit_files(&monitor, 1024);
        // The connection that was refused before is accepted now.
        let target = target(&id);
        other.executor().close_stdin(&target).await.unwrap();
        assert!(other.known_state(&id).await.unwrap().1.is_none());
    }
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_container_whose_creator_ends_before_the_start_is_ended(rig: &Rig) {
    for (unless_started, expected) in [(true, Status::Stopped), (false, Status::Created)] {
        let process = rig.process(&["sleep", "1000"]);
        let mut new = rig.container("web", process, StdioRequest::default());
        new.monitor.kill_unless_started = unless_started;
        let id = new.id.clone();
        let creator = rig.another();
        let (record, _) = creator.create(new).await.unwrap();
        drop(creator);
        if expected == Status::Stopped {
            has_ended(record.process.as_ref().unwrap()).await;
            assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 137);
        }
        assert_eq!(rig.engine.state(&id).await.unwrap().status, expected);
        rig.engine.delete(&id, true).await.unwrap();
    }
}

async fn a_record_that_is_no_file_blocks_nothing(rig: &Rig) {
    let fifo = |path: &std::path::Path| mkfifo(path, Mode::S_IRWXU).unwrap();
    let folder = |path: &std::path::Path| fs::create_dir(path).unwrap();
    let link = |path: &std::path::Path| symlink("/dev/zero", path).unwrap();
    let others: [&dyn Fn(&std::path::Path); 3] = [&fifo, &folder, &link];
    for make in others {
        let (id, _output) = rig.start_shell("web", "exec sleep 1000").await;
        let dir = rig.root.path().join("web");
        let exit = dir.join("exit.json");
        make(&exit);
        assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
        let _ = fs::remove_file(&exit);
        let _ = fs::remove_dir(&exit);
        let plan = dir.join("plan.json");
        fs::rename(&plan, dir.join("kept")).unwrap();
        make(&plan);
        // The monitor needs no record of its own.
        rig.engine.kill(&id, Signal::KILL, true).await.unwrap();
        assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 137);
        let _ = fs::remove_file(&plan);
        let _ = fs::remove_dir(&plan);
        fs::rename(dir.join("kept"), &plan).unwrap();
        rig.engine.delete(&id, false).await.unwrap();
    }
}

async fn a_process_that_cannot_be_killed_now_is_named_and_left(rig: &Rig) {
    for is_stopped in [false, true] {
        let (id, _output) = rig.start_shell("web", "exec sleep 1000").await;
        let record = rig.engine.state(&id).await.unwrap();
        let process = record.process.unwrap();
        let name = rig.root.path().file_name().unwrap();
        let Some(frozen) = Frozen::new(name.to_str().unwrap(), &process) else {
            rig.engine.delete(&id, true).await.unwrap();
            return;
        };
        if is_stopped {
            kill(pid(&record.monitor.unwrap()), NixSignal::SIGSTOP).unwrap();
        }
        let exit = rig.engine.delete(&id, true).await.unwrap().unwrap();
        let ExitStatus::Unknown { reason } = exit.status else {
            panic!("it has not ended: {exit:?}");
        };
        assert!(
            is_stopped || reason.contains(&process.pid.to_string()),
            "{reason}"
        );
        assert!(reaper_exec::procfs::is_alive(&process));
        drop(frozen);
        has_ended(&process).await;
        // What was left in it is left as well: the doctor finds it.
        assert!(!rig.cgroups("web").is_empty());
        rig.remove_cgroups("web");
    }
}
