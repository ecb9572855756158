//! Kills at every step, of whoever creates, of the monitor, of both.

use std::{
    fs::{self, File, Permissions},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus as HostStatus, Stdio},
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::{
        signal::{Signal as NixSignal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use reaper_exec::{
    Engine, Executor, HostExecutor, OciExecutor, Signal, Target, cgroup::read_events, procfs,
};
use reaper_spec::{ContainerId, ExitStatus, ProcessIdentity, Status};
use reaper_state::{Record, StateRoot, StateStore as _};

use crate::{
    frozen::Frozen,
    rig::{Rig, cases, within_a_minute},
};

cases! {
container_during_create_is_creating_and_not_deletable,
    forced_delete_during_create_makes_create_fail,
    a_creation_whose_monitor_cannot_be_killed_now_can_be_deleted_by_force,
    a_creation_whose_runtime_hangs_can_be_deleted_by_force,
    a_creation_whose_monitor_is_killed_says_so,
    what_a_killed_monitor_was_writing_goes_with_its_container,
    a_creator_killed_before_its_monitor_began_leaves_a_stopped_container,
    a_creator_killed_during_the_creation_leaves_nothing_running,
    a_creator_killed_afterwards_leaves_a_container_that_can_be_started,
    a_monitor_killed_during_the_creation_is_an_error_and_nothing_else,
    container_is_deletable_after_creator_and_monitor_were_killed,
    concurrent_clients_clean_up_after_killed_monitor,
    a_reused_pid_is_not_signalled,
    cleanup_record_of_earlier_boot_kills_no_process,
    stale_exit_record_is_not_taken_for_new_container,
    empty_cleanup_record_does_not_block_create,
    monitors_are_reaped_after_their_executor_is_dropped,
}

/// A program that creates a container, and a step at which that stalls.
struct Creation {
    creator: Child,
    fifo: PathBuf,
    id: ContainerId,
}

impl Creation {
    fn stalled_at(rig: &Rig, step: &str) -> Self {
        let folder = rig.root.path().with_extension("fifos");
        fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join(step);
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let id = ContainerId::new("stalled").unwrap();
        let creator = Command::new(std::env::current_exe().unwrap())
            .args(["--create".as_ref(), rig.root.path().as_os_str()])
            .args([fifo.as_os_str(), id.as_str().as_ref()])
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { creator, fifo, id }
    }

    /// Returns when the step is waiting; what it returns ends the wait when it is dropped.
    fn reached(&self) -> File {
        File::options().write(true).open(&self.fifo).unwrap()
    }

    async fn monitor(&self, rig: &Rig) -> ProcessIdentity {
        let seen = rig.engine.executor().state(&self.id).await.unwrap();
        seen.monitor.unwrap()
    }

    fn kill(&mut self) {
        self.creator.kill().unwrap();
        self.creator.wait().unwrap();
    }

    fn end(&mut self) -> HostStatus {
        self.creator.wait().unwrap()
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        let _ = self.creator.kill();
        let _ = self.creator.wait();
        let _ = fs::remove_dir_all(self.fifo.parent().unwrap());
    }
}

pub(crate) fn kill_process(process: &ProcessIdentity) {
    let pid = i32::try_from(process.pid).unwrap();
    kill(Pid::from_raw(pid), NixSignal::SIGKILL).unwrap();
}

/// Waits for the end of a process.
pub(crate) async fn has_ended(process: &ProcessIdentity) {
    let Ok(pidfd) = procfs::open_pidfd(process) else {
        return;
    };
    let ended = tokio::task::spawn_blocking(move || {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, 20_000_u16).unwrap()
    });
    assert_eq!(ended.await.unwrap(), 1, "it stays");
}

async fn container_during_create_is_creating_and_not_deletable(rig: &Rig) {
    let mut creation = Creation::stalled_at(rig, "prepare");
    let stall = creation.reached();
    let id = creation.id.clone();
    assert_eq!(
        rig.engine.state(&id).await.unwrap().status,
        Status::Creating
    );
    let refused = rig.engine.delete(&id, false).await.unwrap_err();
    assert!(refused.to_string().contains("creating"), "{refused}");
    let target = Target::Init(id.clone());
    let refused = rig.engine.executor().delete(&target).await.unwrap_err();
    assert!(refused.to_string().contains("creating"), "{refused}");
    drop(stall);
    assert!(creation.end().success());
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Created);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn forced_delete_during_create_makes_create_fail(rig: &Rig) {
    for step in ["prepare", "enter"] {
        let mut creation = Creation::stalled_at(rig, step);
        let _stall = creation.reached();
        rig.engine.delete(&creation.id, true).await.unwrap();
        assert!(!creation.end().success(), "{step}");
    }
}

async fn a_creation_whose_monitor_cannot_be_killed_now_can_be_deleted_by_force(rig: &Rig) {
    let mut creation = Creation::stalled_at(rig, "prepare");
    let stall = creation.reached();
    let monitor = creation.monitor(rig).await;
    let name = rig.root.path().file_name().unwrap();
    let frozen = Frozen::new(name.to_str().unwrap(), &monitor);
    let target = Target::Init(creation.id.clone());
    let executor = rig.engine.executor();
    executor.kill(&target, Signal::KILL, false).await.unwrap();
    if frozen.is_some() {
        assert!(procfs::is_alive(&monitor));
    }
    rig.engine.delete(&creation.id, true).await.unwrap();
    drop((frozen, stall));
    has_ended(&monitor).await;
    assert!(!creation.end().success());
}

async fn a_creation_whose_runtime_hangs_can_be_deleted_by_force(rig: &Rig) {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, calls) = (folder.path().join("runtime"), folder.path().join("calls"));
    let script = format!(
        "#!/bin/sh\necho $$ >> {}\nexec sleep 1000\n",
        calls.display()
    );
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
    let engine = |rig: &Rig| {
        let root = StateRoot::new(rig.root.path());
        let executor = OciExecutor::new(HostExecutor::new(root.clone()), &runtime);
        Engine::new(executor, rig.engine.store().clone(), root)
    };
    let (new, _output) = rig.shell("hangs", "true");
    let id = new.id.clone();
    let creator = engine(rig);
    let deleted = async {
        while !fs::read_to_string(&calls).is_ok_and(|text| text.ends_with('\n')) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        engine(rig).delete(&id, true).await
    };
    let (created, deleted) = tokio::join!(creator.create(new), within_a_minute(deleted));
    deleted.unwrap();
    let error = created.unwrap_err().to_string();
    assert_eq!(
        error,
        "container hangs was deleted while it was being created"
    );
    for pid in fs::read_to_string(&calls).unwrap().lines() {
        let gone = kill(Pid::from_raw(pid.parse().unwrap()), None);
        let is_zombie = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        assert!(gone.is_err() || is_zombie(), "{pid} is there");
    }
}

async fn a_creation_whose_monitor_is_killed_says_so(rig: &Rig) {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, called) = (folder.path().join("runtime"), folder.path().join("called"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *create*) echo > {}; exec sleep 1000;; esac\n",
        called.display()
    );
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
    let root = StateRoot::new(rig.root.path());
    let executor = OciExecutor::new(HostExecutor::new(root.clone()), &runtime);
    let engine = Engine::new(executor, rig.engine.store().clone(), root);
    let (new, _output) = rig.shell("killed", "true");
    let target = Target::Init(new.id.clone());
    let killed = async {
        while !called.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let executor = rig.engine.executor();
        executor.kill(&target, Signal::KILL, false).await
    };
    let (created, killed) = tokio::join!(engine.create(new), within_a_minute(killed));
    killed.unwrap();
    let error = created.unwrap_err().to_string();
    assert!(
        error.contains("was killed while it made the container"),
        "{error}"
    );
}

async fn what_a_killed_monitor_was_writing_goes_with_its_container(rig: &Rig) {
    let staged = [".exit.json.4711.0", "plan.new", ".state.json.new"];
    let (id, _output) = rig.start_shell("web", "exec sleep 1000").await;
    let dir = rig.root.path().join("web");
    let leave = |names: &[&str]| {
        for name in names {
            fs::write(dir.join(name), "{").unwrap();
        }
    };
    leave(&staged);
    rig.engine.delete(&id, true).await.unwrap();
    assert!(!dir.exists());

    // As if the creation had been killed before there was a record.
    fs::create_dir(&dir).unwrap();
    leave(&staged[2..]);
    let nothing = rig.engine.delete(&id, true).await.unwrap_err();
    assert!(nothing.to_string().contains("does not exist"), "{nothing}");
    assert!(!dir.exists());
}

async fn a_creator_killed_before_its_monitor_began_leaves_a_stopped_container(rig: &Rig) {
    let mut process = Command::new("true").spawn().unwrap();
    let creator = procfs::identify(process.id()).unwrap();
    process.wait().unwrap();
    let id = ContainerId::new("early").unwrap();
    let mut record = Record::new(id.clone(), "/".into());
    record.monitor = Some(creator);
    rig.engine.store().create(&record).unwrap();
    let record = rig.engine.state(&id).await.unwrap();
    assert_eq!(record.status, Status::Stopped);
    assert_eq!(record.exit.unwrap().status.code(), 137);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn a_creator_killed_during_the_creation_leaves_nothing_running(rig: &Rig) {
    for step in ["prepare", "enter"] {
        let mut creation = Creation::stalled_at(rig, step);
        let stall = creation.reached();
        let monitor = creation.monitor(rig).await;
        creation.kill();
        drop(stall);
        has_ended(&monitor).await;
        assert!(!rig.marked_process_exists());
        let record = rig.engine.state(&creation.id).await.unwrap();
        assert_eq!(record.status, Status::Stopped, "{step}");
        assert_eq!(record.exit.unwrap().status.code(), 137);
        rig.engine.delete(&creation.id, false).await.unwrap();
    }
}

async fn a_creator_killed_afterwards_leaves_a_container_that_can_be_started(rig: &Rig) {
    let mut creation = Creation::stalled_at(rig, "prepare");
    drop(creation.reached());
    assert!(creation.end().success());
    // As if it had been killed before it could commit.
    let stored = rig.engine.store().get(&creation.id).unwrap();
    let mut record = Record::new(creation.id.clone(), "/".into());
    record.monitor = Some(ProcessIdentity {
        pid: creation.creator.id(),
        ..procfs::identify(std::process::id()).unwrap()
    });
    rig.engine
        .store()
        .update(&stored.revision, &record)
        .unwrap();
    assert_eq!(
        rig.engine.state(&creation.id).await.unwrap().status,
        Status::Created
    );
    rig.engine.start(&creation.id).await.unwrap();
    rig.engine.delete(&creation.id, true).await.unwrap();
}

async fn a_monitor_killed_during_the_creation_is_an_error_and_nothing_else(rig: &Rig) {
    for step in ["prepare", "enter"] {
        let mut creation = Creation::stalled_at(rig, step);
        let stall = creation.reached();
        kill_process(&creation.monitor(rig).await);
        drop(stall);
        assert!(!creation.end().success(), "{step}");
        assert!(!rig.root.path().join("stalled").exists(), "{step}");
    }
}

async fn container_is_deletable_after_creator_and_monitor_were_killed(rig: &Rig) {
    for step in ["prepare", "enter"] {
        let mut creation = Creation::stalled_at(rig, step);
        let stall = creation.reached();
        let monitor = creation.monitor(rig).await;
        creation.kill();
        kill_process(&monitor);
        has_ended(&monitor).await;
        drop(stall);
        let record = rig.engine.state(&creation.id).await.unwrap();
        assert_eq!(record.status, Status::Stopped, "{step}");
        assert_eq!(record.exit.unwrap().status.code(), 137);
        rig.engine.delete(&creation.id, false).await.unwrap();
    }
}

async fn concurrent_clients_clean_up_after_killed_monitor(rig: &Rig) {
    for stage in ["gated", "running", "execs"] {
        let (new, mut output) = rig.shell(
            "lost",
            "setsid sh -c 'sleep 1000 & (setsid sleep 1000 &) ; wait' & echo up; exec sleep 1000",
        );
        let id = new.id.clone();
        let (record, _) = rig.engine.create(new).await.unwrap();
        if stage != "gated" {
            rig.engine.start(&id).await.unwrap();
            assert_eq!(output.line(), "up");
        }
        let mut outputs = Vec::new();
        if stage == "execs" {
            for exec in ["a", "b"] {
                outputs.push(
                    rig.exec_shell(&id, exec, "setsid sleep 1000 & exec sleep 1000")
                        .await,
                );
            }
        }
        kill_process(&record.monitor.unwrap());
        let others = [(); 4].map(|()| rig.another());
        let (a, b, c, d) = tokio::join!(
            others[0].state(&id),
            others[1].wait(&id),
            others[2].state(&id),
            rig.engine.wait(&id),
        );
        let exits = [
            a.unwrap().exit.unwrap(),
            b.unwrap(),
            c.unwrap().exit.unwrap(),
            d.unwrap(),
        ];
        assert!(
            matches!(exits[0].status, ExitStatus::Unknown { .. }),
            "{stage}: {exits:?}"
        );
        assert!(
            exits.iter().all(|exit| *exit == exits[0]),
            "{stage}: {exits:?}"
        );
        assert_eq!(exits[0].status.code(), 137);
        assert!(rig.ended_without_monitor(), "{stage}");
        let (a, b) = tokio::join!(others[0].delete(&id, true), others[1].delete(&id, true));
        assert!(a.is_ok() || b.is_ok(), "{stage}: {a:?} {b:?}");
        assert!(!rig.root.path().join("lost").exists(), "{stage}");
    }
}

/// Changes the plan of a container whose monitor was killed.
async fn with_plan(rig: &Rig, id: &str, change: impl FnOnce(String) -> String) -> ContainerId {
    let (id, _output) = rig.start_shell(id, "exec sleep 1000").await;
    let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
    kill_process(&monitor);
    has_ended(&monitor).await;
    let plan = rig.root.path().join(id.as_str()).join("plan.json");
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, change(text)).unwrap();
    id
}

/// A process that has nothing to do with containers, and does not outlive a failing test.
struct Innocent(Child);

impl Innocent {
    /// One that was not started in the same clock tick as `other`, as no process that gets its
    /// pid later can have been.
    fn younger_than(other: &ProcessIdentity) -> Self {
        loop {
            let mut command = Command::new("sleep");
            let innocent = Self(command.arg("1000").stdout(Stdio::null()).spawn().unwrap());
            let identity = procfs::identify(innocent.0.id()).unwrap();
            if identity.start_time != other.start_time {
                return innocent;
            }
        }
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn a_reused_pid_is_not_signalled(rig: &Rig) {
    let mut innocent = None;
    let reused = |plan: String| {
        let mut plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        let monitor = serde_json::from_value(plan["monitor"].clone()).unwrap();
        let process = innocent.insert(Innocent::younger_than(&monitor));
        plan["monitor"]["pid"] = process.0.id().into();
        plan.to_string()
    };
    let id = with_plan(rig, "reused", reused).await;
    assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 137);
    rig.engine.delete(&id, false).await.unwrap();
    assert!(innocent.unwrap().0.try_wait().unwrap().is_none());
}

async fn cleanup_record_of_earlier_boot_kills_no_process(rig: &Rig) {
    let (other, _output) = rig.start_shell("other", "exec sleep 1000").await;
    let boot = procfs::boot_id().unwrap();
    let id = with_plan(rig, "before", |plan| {
        // The cgroup's name is another container's by now.
        plan.replace(&boot, "another boot")
            .replace("/before\"", "/other\"")
    })
    .await;
    let processes = rig.engine.state(&id).await.unwrap();
    let ExitStatus::Unknown { reason } = processes.exit.unwrap().status else {
        panic!("not lost")
    };
    assert!(reason.contains("restarted"), "{reason}");
    assert_eq!(
        rig.engine.state(&other).await.unwrap().status,
        Status::Running
    );
    rig.engine.delete(&id, false).await.unwrap();
    rig.engine.delete(&other, true).await.unwrap();
    // In this boot it is alive, in a cgroup that no record names any more.
    for pid in rig.marked_processes() {
        kill(pid, NixSignal::SIGKILL).unwrap();
    }
    // With cgroup v1 alone there is none.
    let Some(cgroup) = rig.cgroup("before") else {
        return rig.remove_cgroups("before");
    };
    let events = File::open(cgroup.join("cgroup.events")).unwrap();
    while read_events(&events).unwrap().populated {
        poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)],
            10_000_u16,
        )
        .unwrap();
    }
    rig.remove_cgroups("before");
}

async fn stale_exit_record_is_not_taken_for_new_container(rig: &Rig) {
    let folder = rig.root.path().join("again");
    fs::create_dir_all(&folder).unwrap();
    let exit = reaper_spec::Exit::new(
        ExitStatus::Exited { code: 0 },
        reaper_spec::Timestamp::now(),
    );
    let mut old = serde_json::to_value(exit).unwrap();
    old["version"] = 1.into();
    fs::write(folder.join("exit.json"), old.to_string()).unwrap();
    fs::write(folder.join("monitor"), "").unwrap();
    let (id, _output) = rig.start_shell("again", "exec sleep 1000").await;
    let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
    kill_process(&monitor);
    assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 137);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn empty_cleanup_record_does_not_block_create(rig: &Rig) {
    let folder = rig.root.path().join("empty");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("plan.json"), "").unwrap();
    let (id, output) = rig.start_shell("empty", "echo up").await;
    assert_eq!(output.all(), "up\n");
    rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
}

async fn monitors_are_reaped_after_their_executor_is_dropped(rig: &Rig) {
    let other = rig.another();
    let (new, _output) = rig.shell("zombie", "exec sleep 1000");
    let id = new.id.clone();
    let (record, _) = other.create(new).await.unwrap();
    drop(other);
    rig.engine.delete(&id, true).await.unwrap();
    let path = PathBuf::from(format!("/proc/{}", record.monitor.unwrap().pid));
    let reaped = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, reaped)
        .await
        .expect("a zombie stays");
}
