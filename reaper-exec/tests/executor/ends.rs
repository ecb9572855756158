//! Ends that nobody asked for: of init with children, of monitors, of clients.

use std::os::fd::AsFd;

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::signal::{Signal as NixSignal, kill},
    unistd::Pid,
};
use reaper_exec::{Executor, Signal, Target};
use reaper_spec::{ContainerId, ExitStatus, Status};

use crate::rig::{Rig, cases};

cases! {
    descendants_of_init_are_killed_when_init_exits,
    exit_without_waiting_client_is_recorded,
    a_killed_monitor_is_137_with_a_reason,
    container_survives_disconnect_of_its_creator,
    monitor_exits_after_container_exit_without_clients,
}

async fn descendants_of_init_are_killed_when_init_exits(rig: &Rig) {
    let script = "for i in 1 2 3 4 5; do setsid sh -c 'sleep 1000 & setsid sleep 1000 & wait' & done; \
        (setsid sleep 1000 &); echo up; exit 4";
    let (id, mut output) = rig.start_shell("tree", script).await;
    assert_eq!(output.line(), "up");
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 4 });
    assert!(!rig.marked_process_exists());
    rig.engine.delete(&id, false).await.unwrap();
}

async fn exit_without_waiting_client_is_recorded(rig: &Rig) {
    let other = rig.another();
    let (new, mut output) = rig.shell("alone", "exit 42");
    let id = new.id.clone();
    other.create(new).await.unwrap();
    other.start(&id).await.unwrap();
    drop(other);
    // The end of the output is the end of the process, and the monitor's lock on its folder
    // follows; whoever asks in between is answered by the monitor.
    assert_eq!(output.line(), "");
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 42 });
    let record = rig.another().state(&id).await.unwrap();
    assert_eq!((record.status, record.exit), (Status::Stopped, Some(exit)));
    rig.engine.delete(&id, false).await.unwrap();
}

async fn a_killed_monitor_is_137_with_a_reason(rig: &Rig) {
    let (id, mut output) = rig
        .start_shell("orphan", "setsid sleep 1000 & echo up; exec sleep 1000")
        .await;
    assert_eq!(output.line(), "up");
    let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
    let waiting = rig.engine.executor();
    let target = Target::Init(id.clone());
    kill(
        Pid::from_raw(i32::try_from(monitor.pid).unwrap()),
        NixSignal::SIGKILL,
    )
    .unwrap();
    let exit = waiting.wait(&target).await.unwrap();
    assert_eq!(exit.status.code(), 137);
    let ExitStatus::Unknown { reason } = &exit.status else {
        panic!("{exit:?}")
    };
    assert!(reason.contains("monitor"), "{reason}");
    let record = rig.another().state(&id).await.unwrap();
    assert_eq!(record.exit, Some(exit));
    assert!(rig.ended_without_monitor());
    rig.engine.delete(&id, false).await.unwrap();
}

async fn container_survives_disconnect_of_its_creator(rig: &Rig) {
    let other = rig.another();
    let (new, _output) = rig.shell("kept", "exec sleep 1000");
    let id = new.id.clone();
    other.create(new).await.unwrap();
    drop(other);
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Created);
    rig.engine.start(&id).await.unwrap();
    rig.engine.kill(&id, Signal::KILL, true).await.unwrap();
    assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 137);
    rig.engine.delete(&id, false).await.unwrap();
    assert!(rig.engine.list().await.unwrap().is_empty());
}

async fn monitor_exits_after_container_exit_without_clients(rig: &Rig) {
    let other = rig.another();
    let (new, output) = rig.shell("short", "exit 0");
    let id: ContainerId = new.id.clone();
    other.create(new).await.unwrap();
    let record = other.start(&id).await.unwrap();
    let monitor = record.monitor.unwrap();
    let pidfd = reaper_exec::procfs::open_pidfd(&monitor).unwrap();
    drop(other);
    assert_eq!(output.all(), "");
    // Readable once the process has ended.
    let ended = tokio::task::spawn_blocking(move || {
        poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            10_000_u16,
        )
        .unwrap()
    });
    assert_eq!(ended.await.unwrap(), 1, "the monitor stays");
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Stopped);
    rig.engine.delete(&id, false).await.unwrap();
}
