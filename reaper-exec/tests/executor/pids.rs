//! Pid namespaces: one of a container's own, one that it joins, and one that is kept for others.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use nix::{
    sys::signal::{Signal as NixSignal, kill},
    unistd::Pid,
};
use reaper_exec::{ContainerConfig, Executor as _, Signal, io::StdioRequest, procfs};
use reaper_spec::{
    Capabilities, ContainerId, ExitStatus, FileRestrictions, NamespaceKind, NamespacePath,
    ProcessIdentity, Status, User,
};

use crate::{
    crashes::kill_process,
    output::Output,
    rig::{Rig, cases},
};

cases! {
    init_is_number_1_and_sees_the_processes_of_its_container_alone,
    exec_is_in_the_pid_namespace_and_what_it_leaves_goes_to_number_1,
    masked_and_read_only_paths_lie_on_the_own_proc,
    the_own_proc_is_in_one_containers_view_alone,
    the_end_of_number_1_ends_all_and_its_exit_is_passed_on,
    a_signal_whose_default_is_to_end_a_process_does_nothing_to_number_1,
    a_killed_monitor_takes_a_pid_namespace_with_it,
    a_program_that_is_no_number_1_yet_can_be_refused,
    a_pid_namespace_that_is_named_by_path_is_joined,
    what_a_container_leaves_in_a_joined_pid_namespace_ends_with_it,
    a_pid_namespace_of_a_process_that_has_exited_is_not_joined,
    a_holder_keeps_a_pid_namespace_and_reaps,
    a_holder_has_nothing_that_could_be_reached_through_it,
    a_holder_ends_by_signals_from_outside_alone,
    the_end_of_a_holder_ends_what_has_joined,
    processes_of_others_and_of_the_host_are_closed_with_a_pid_namespace,
}

/// The processes that a shell sees, without a program: their numbers.
const NUMBERS: &str = "cd /proc && echo [0-9]*";

fn private(rig: &Rig, id: &str, script: &str) -> (ContainerConfig, Output) {
    let (mut new, output) = rig.shell(id, script);
    new.new_pid_namespace = true;
    (new, output)
}

async fn start(rig: &Rig, new: ContainerConfig) -> (ContainerId, ProcessIdentity) {
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let record = rig.engine.start(&id).await.unwrap();
    (id, record.process.unwrap())
}

async fn run_private(rig: &Rig, id: &str, script: &str) -> (ContainerId, ProcessIdentity, Output) {
    let (new, output) = private(rig, id, script);
    let (id, process) = start(rig, new).await;
    (id, process, output)
}

async fn shown(rig: &Rig, id: &ContainerId, exec: &str, script: &str) -> String {
    let (target, output) = rig.exec_shell(id, exec, script).await;
    rig.engine.executor().wait(&target).await.unwrap();
    output.all().trim().to_owned()
}

fn nobody() -> User {
    User {
        uid: 4321,
        gid: 4321,
        umask: None,
        additional_gids: Vec::new(),
    }
}

fn namespace(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/pid")).unwrap().ino()
}

fn path_of(process: &ProcessIdentity) -> NamespacePath {
    NamespacePath {
        kind: NamespaceKind::Pid,
        path: format!("/proc/{}/ns/pid", process.pid).into(),
        process: Some(process.clone()),
    }
}

fn holder(rig: &Rig, id: &str) -> ContainerConfig {
    let mut new = rig.container(id, rig.process(&["reaper-pause"]), StdioRequest::default());
    new.holds_pids = true;
    new
}

async fn delete(rig: &Rig, id: &ContainerId) {
    rig.engine.delete(id, true).await.unwrap();
}

async fn init_is_number_1_and_sees_the_processes_of_its_container_alone(rig: &Rig) {
    let script = format!("echo $$; {NUMBERS}; exec sleep 1000");
    let (id, process, mut output) = run_private(rig, "own", &script).await;
    assert_eq!(output.line(), "1");
    assert_eq!(output.line(), "1");
    assert_ne!(namespace(process.pid), namespace(std::process::id()));
    // Clients get the pids of the host.
    let pids = rig.engine.executor().pids(&id).await.unwrap();
    assert_eq!(
        pids.iter().map(|one| one.pid).collect::<Vec<_>>(),
        [process.pid]
    );
    let state = rig.engine.state(&id).await.unwrap();
    assert_eq!(state.process, Some(process));
    assert_eq!(state.status, Status::Running);
    delete(rig, &id).await;
}

async fn exec_is_in_the_pid_namespace_and_what_it_leaves_goes_to_number_1(rig: &Rig) {
    // A shell that waits reaps what becomes its child.
    let script = "trap : CHLD; while :; do sleep 1000 & wait; done";
    let (id, process, _output) = run_private(rig, "own", script).await;
    let seen = shown(
        rig,
        &id,
        "look",
        "stat -Lc %i /proc/self/ns/pid; cat /proc/1/comm",
    )
    .await;
    assert_eq!(seen, format!("{}\nsh", namespace(process.pid)));
    let script = "sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'; exit 7";
    let (target, output) = rig.exec_shell(&id, "leaves", script).await;
    let exit = rig.engine.executor().wait(&target).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 7 });
    let left = output.all().trim().to_owned();
    let look = format!(
        "while read name value; do [ $name = PPid: ] && echo $value; done < /proc/{left}/status"
    );
    assert_eq!(shown(rig, &id, "parent", &look).await, "1");
    // Once it has ended, number 1 reaps it.
    let gone = format!("kill {left}; while [ -e /proc/{left} ]; do :; done; echo gone");
    assert_eq!(shown(rig, &id, "reap", &gone).await, "gone");
    // Exec'd processes can be killed, and are signalled as any.
    let (target, _output) = rig.exec_shell(&id, "killed", "exec sleep 1000").await;
    rig.engine
        .executor()
        .kill(&target, Signal::TERM, false)
        .await
        .unwrap();
    let exit = rig.engine.executor().wait(&target).await.unwrap();
    let by_term = ExitStatus::Signaled {
        signal: Signal::TERM.number(),
        core: false,
    };
    assert_eq!(exit.status, by_term);
    delete(rig, &id).await;
}

async fn masked_and_read_only_paths_lie_on_the_own_proc(rig: &Rig) {
    let (mut new, _output) = private(rig, "own", "exec sleep 1000");
    new.view.restrictions = FileRestrictions {
        read_only: true,
        masked_paths: vec!["/proc/timer_list".into(), "/proc/acpi".into()],
        read_only_paths: vec!["/proc/sys".into()],
        ..FileRestrictions::default()
    };
    // What an ordinary program needs of it has to go on working, whatever user it is.
    new.process.user = Some(nobody());
    new.process.capabilities = Some(Capabilities::default());
    let (id, _) = start(rig, new).await;
    let script = "cat /proc/timer_list; readlink /proc/self/exe; \
        test -w /proc/self/comm && echo writable; test -w /proc/sys/kernel || echo protected; \
        (echo x > /etc/reaper-test) 2>/dev/null || echo protected";
    let mut process = rig.process(&["/bin/sh", "-c", script]);
    process.user = Some(nobody());
    let (_, target, output) = rig.exec_process(&id, "look", process).await;
    rig.engine.executor().wait(&target).await.unwrap();
    let seen = output.all();
    assert!(
        seen.ends_with("\nwritable\nprotected\nprotected\n"),
        "{seen}"
    );
    let mounts = shown(rig, &id, "mounts", "cat /proc/self/mountinfo").await;
    let line = mounts
        .lines()
        .rfind(|line| line.contains(" /proc rw,"))
        .expect(&mounts);
    assert!(line.contains("nosuid,nodev,noexec"), "{line}");
    let sys = mounts
        .lines()
        .rfind(|line| line.contains(" /sys /proc/sys "))
        .expect(&mounts);
    assert!(sys.contains(" ro,"), "{sys}");
    delete(rig, &id).await;
}

/// The mounts of procfs that the tests see. What else is mounted is others' doing.
fn proc_mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_proc = mounts.lines().filter(|line| line.contains(" - proc "));
    of_proc.map(str::to_owned).collect()
}

async fn the_own_proc_is_in_one_containers_view_alone(rig: &Rig) {
    let before = proc_mounts();
    let (own, _, _output) = run_private(rig, "own", "exec sleep 1000").await;
    let (other, output) = rig
        .start_shell("other", "readlink /proc/self/ns/pid; exec sleep 1000")
        .await;
    let mut output = output;
    let hosts = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(output.line(), hosts.display().to_string());
    let (second, _, mut output) =
        run_private(rig, "second", &format!("{NUMBERS}; exec sleep 1000")).await;
    assert_eq!(output.line(), "1");
    assert_eq!(proc_mounts(), before);
    for id in [&own, &other, &second] {
        delete(rig, id).await;
    }
}

async fn the_end_of_number_1_ends_all_and_its_exit_is_passed_on(rig: &Rig) {
    let script = "sleep 1000 & setsid sleep 1000 & read line; exit 3";
    let (new, _output) = private(rig, "own", script);
    let (id, _) = start(rig, new).await;
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 3 });
    assert!(!rig.marked_process_exists());
    delete(rig, &id).await;

    // Also without a cgroup, and with a process that was added.
    let (mut new, _output) = private(rig, "without", "setsid sleep 1000 & exec sleep 1000");
    new.monitor.cgroups = reaper_spec::CgroupMode::Off;
    new.cgroups_path = None;
    let (id, _) = start(rig, new).await;
    let (exec, _output) = rig
        .exec_shell(&id, "added", "setsid sleep 1000 & exec sleep 1000")
        .await;
    rig.engine.kill(&id, Signal::KILL, false).await.unwrap();
    let killed = ExitStatus::Signaled {
        signal: Signal::KILL.number(),
        core: false,
    };
    assert_eq!(rig.engine.wait(&id).await.unwrap().status, killed);
    assert_eq!(
        rig.engine.executor().wait(&exec).await.unwrap().status,
        killed
    );
    assert!(!rig.marked_process_exists());
    // Nothing can be added to what has ended.
    assert!(
        rig.engine
            .executor()
            .pids(&id)
            .await
            .unwrap_or_default()
            .is_empty()
    );
    delete(rig, &id).await;
}

async fn a_signal_whose_default_is_to_end_a_process_does_nothing_to_number_1(rig: &Rig) {
    let (id, process, _output) = run_private(rig, "deaf", "exec sleep 1000").await;
    rig.engine.kill(&id, Signal::TERM, false).await.unwrap();
    // It is not pending either: the kernel has discarded it.
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    for set in ["SigPnd:", "ShdPnd:"] {
        let line = status.lines().find(|line| line.starts_with(set)).unwrap();
        assert_eq!(
            line.split_whitespace().last(),
            Some("0000000000000000"),
            "{line}"
        );
    }
    assert!(procfs::is_alive(&process));
    delete(rig, &id).await;
    let heeds = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let (id, _, mut output) = run_private(rig, "heeds", heeds).await;
    assert_eq!(output.line(), "ready");
    rig.engine.kill(&id, Signal::TERM, true).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 5 });
    delete(rig, &id).await;
}

async fn a_killed_monitor_takes_a_pid_namespace_with_it(rig: &Rig) {
    // Without the signal at the monitor's death it would need the cgroup.
    let script = "setsid sleep 1000 & echo ready; exec sleep 1000";
    let (id, _, mut output) = run_private(rig, "own", script).await;
    assert_eq!(output.line(), "ready");
    let record = rig.engine.state(&id).await.unwrap();
    kill_process(&record.monitor.unwrap());
    let exit = rig.engine.wait(&id).await.unwrap();
    assert!(
        matches!(exit.status, ExitStatus::Unknown { .. }),
        "{exit:?}"
    );
    assert!(!rig.marked_process_exists());
    delete(rig, &id).await;
}

async fn a_program_that_is_no_number_1_yet_can_be_refused(rig: &Rig) {
    let (mut new, _output) = private(rig, "wrong", "true");
    new.process.args = vec!["/no/such/program".to_owned()];
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let error = rig.engine.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");
    delete(rig, &id).await;
    let (mut new, _output) = private(rig, "nowhere", "true");
    new.process.cwd = PathBuf::from("/proc/1/root/nowhere");
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    assert!(error.contains("/proc/1/root/nowhere"), "{error}");
}

async fn a_pid_namespace_that_is_named_by_path_is_joined(rig: &Rig) {
    let (first, process, _output) = run_private(rig, "first", "exec sleep 1000").await;
    let (mut new, mut output) = rig.shell("joins", &format!("{NUMBERS}; exec sleep 1000"));
    new.namespaces = vec![path_of(&process)];
    let (second, joined) = start(rig, new).await;
    assert_eq!(output.line(), "1 2");
    assert_eq!(namespace(joined.pid), namespace(process.pid));
    assert_eq!(
        shown(rig, &second, "look", "cat /proc/1/comm").await,
        "sleep"
    );
    // The end of one that is not number 1 is its own.
    rig.engine.kill(&second, Signal::TERM, false).await.unwrap();
    let exit = rig.engine.wait(&second).await.unwrap();
    let by_term = ExitStatus::Signaled {
        signal: Signal::TERM.number(),
        core: false,
    };
    assert_eq!(exit.status, by_term);
    delete(rig, &second).await;
    assert!(procfs::is_alive(&process));
    delete(rig, &first).await;
}

async fn what_a_container_leaves_in_a_joined_pid_namespace_ends_with_it(rig: &Rig) {
    let (held, _) = start(rig, holder(rig, "pod")).await;
    let process = rig.engine.state(&held).await.unwrap().process.unwrap();
    // Ten, which become children of the holder.
    let script = "for i in 0 1 2 3 4 5 6 7 8 9; do setsid sh -c 'setsid sleep 1000 &'; done; \
        echo ready; read line; exit 4";
    let (mut new, output) = rig.shell("leaves", script);
    new.namespaces = vec![path_of(&process)];
    let (id, _) = start(rig, new).await;
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 4 });
    assert_eq!(output.all(), "ready\n");
    // They have exited by the time that the exit is told.
    assert!(!rig.marked_process_exists());
    assert!(procfs::is_alive(&process));
    delete(rig, &id).await;
    assert_eq!(rig.cgroup("leaves"), None);
    delete(rig, &held).await;
}

async fn a_pid_namespace_of_a_process_that_has_exited_is_not_joined(rig: &Rig) {
    let (first, process, _output) = run_private(rig, "first", "exec sleep 1000").await;
    let (mut new, _output) = rig.shell("joins", "true");
    // As if another process had its pid by now.
    let other = ProcessIdentity {
        start_time: process.start_time + 1,
        ..process.clone()
    };
    new.namespaces = vec![NamespacePath {
        process: Some(other),
        ..path_of(&process)
    }];
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    assert!(
        error.contains("the process that it was of has exited"),
        "{error}"
    );
    // A namespace that is kept open when its number 1 has ended.
    let kept = fs::File::open(format!("/proc/{}/ns/pid", process.pid)).unwrap();
    delete(rig, &first).await;
    let (mut new, _output) = rig.shell("joins", "true");
    let own = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsRawFd::as_raw_fd(&kept)
    );
    new.namespaces = vec![NamespacePath {
        kind: NamespaceKind::Pid,
        path: own.into(),
        process: None,
    }];
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    assert!(
        error.contains("the first process of the pid namespace may have exited"),
        "{error}"
    );
}

async fn a_holder_keeps_a_pid_namespace_and_reaps(rig: &Rig) {
    let (pod, process) = start(rig, holder(rig, "pod")).await;
    assert_eq!(
        rig.engine.state(&pod).await.unwrap().status,
        Status::Running
    );
    let join = |new: &mut ContainerConfig| new.namespaces = vec![path_of(&process)];
    let (mut one, mut output) = rig.shell("one", &format!("{NUMBERS}; exec sleep 1000"));
    join(&mut one);
    let (one, in_one) = start(rig, one).await;
    assert_eq!(output.line(), "1 2");
    let (mut two, mut output) = rig.shell(
        "two",
        "cat /proc/1/comm; kill -0 2 && echo seen; exec sleep 1000",
    );
    join(&mut two);
    let (two, _) = start(rig, two).await;
    assert_eq!([output.line(), output.line()], ["reaper-pause", "seen"]);
    assert_eq!(namespace(in_one.pid), namespace(process.pid));
    let script = "sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'";
    let left = shown(rig, &two, "leaves", script).await;
    let gone = format!("kill {left}; while [ -e /proc/{left} ]; do :; done; echo gone");
    assert_eq!(shown(rig, &one, "reap", &gone).await, "gone");
    // A container of it can be made again and again, also when the monitor of another one was killed.
    let record = rig.engine.state(&two).await.unwrap();
    kill_process(&record.monitor.unwrap());
    rig.engine.wait(&two).await.unwrap();
    delete(rig, &two).await;
    let (mut again, mut output) = rig.shell("two", "readlink /proc/self/ns/pid; exec sleep 1000");
    join(&mut again);
    let (two, _) = start(rig, again).await;
    assert_eq!(output.line(), format!("pid:[{}]", namespace(process.pid)));
    for id in [&one, &two, &pod] {
        delete(rig, id).await;
    }
    assert!(!procfs::is_alive(&process));
}

async fn a_holder_has_nothing_that_could_be_reached_through_it(rig: &Rig) {
    let (pod, process) = start(rig, holder(rig, "pod")).await;
    let of = |name: &str| format!("/proc/{}/{name}", process.pid);
    let status = fs::read_to_string(of("status")).unwrap();
    for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000\n")),
            "{status}"
        );
    }
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    assert_eq!(fs::read_dir(of("root")).unwrap().count(), 0);
    assert!(fs::write(of("root/new"), "").is_err());
    assert_eq!(
        fs::read_to_string(of("mountinfo")).unwrap().lines().count(),
        1
    );
    // What reads its signals, and nothing of its monitor or of the host.
    let open = fs::read_dir(of("fd")).unwrap();
    let open: Vec<_> = open
        .map(|one| fs::read_link(one.unwrap().path()).unwrap())
        .collect();
    assert_eq!(open, [PathBuf::from("anon_inode:[signalfd]")]);
    // Root without the right to trace does not get there.
    let (mut new, _output) = rig.shell("root", "exec sleep 1000");
    new.namespaces = vec![path_of(&process)];
    new.process.capabilities = Some(Capabilities::default());
    let (root, _) = start(rig, new).await;
    let mut look = rig.process(&[
        "/bin/sh",
        "-c",
        "ls /proc/1/root 2>&1; cat /proc/1/fd/0 /proc/1/environ 2>&1",
    ]);
    look.capabilities = Some(Capabilities::default());
    let (_, target, output) = rig.exec_process(&root, "look", look).await;
    rig.engine.executor().wait(&target).await.unwrap();
    let seen = output.all();
    assert_eq!(seen.lines().count(), 3, "{seen}");
    assert!(
        seen.lines().all(|line| line.ends_with("Permission denied")),
        "{seen}"
    );
    delete(rig, &root).await;
    delete(rig, &pod).await;
}

async fn a_holder_ends_by_signals_from_outside_alone(rig: &Rig) {
    let (pod, process) = start(rig, holder(rig, "pod")).await;
    let (mut new, mut output) = rig.shell(
        "in",
        "kill -TERM 1; kill -INT 1; kill -KILL 1; echo sent; exec sleep 1000",
    );
    new.namespaces = vec![path_of(&process)];
    let (id, _) = start(rig, new).await;
    assert_eq!(output.line(), "sent");
    // The signals were read by the time that a child is reaped, which it reads after them.
    let script = "sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'";
    let left = shown(rig, &id, "leaves", script).await;
    let gone = format!("kill {left}; while [ -e /proc/{left} ]; do :; done; echo gone");
    assert_eq!(shown(rig, &id, "reap", &gone).await, "gone");
    assert!(procfs::is_alive(&process));
    rig.engine.kill(&pod, Signal::TERM, false).await.unwrap();
    let exit = rig.engine.wait(&pod).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 0 });
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status.code(), 137);
    delete(rig, &id).await;
    delete(rig, &pod).await;
}

async fn the_end_of_a_holder_ends_what_has_joined(rig: &Rig) {
    let (pod, process) = start(rig, holder(rig, "pod")).await;
    let (mut new, _output) = rig.shell("in", "exec sleep 1000");
    new.namespaces = vec![path_of(&process)];
    let (id, _) = start(rig, new).await;
    kill(Pid::from_raw(process.pid.cast_signed()), NixSignal::SIGKILL).unwrap();
    let killed = ExitStatus::Signaled {
        signal: Signal::KILL.number(),
        core: false,
    };
    assert_eq!(rig.engine.wait(&pod).await.unwrap().status, killed);
    assert_eq!(rig.engine.wait(&id).await.unwrap().status, killed);
    // None can join any more.
    let (mut new, _output) = rig.shell("late", "true");
    new.namespaces = vec![path_of(&process)];
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    assert!(error.contains("join the pid namespace"), "{error}");
    delete(rig, &id).await;
    delete(rig, &pod).await;
}

/// Root that may trace, as the default capabilities of Kubernetes do not allow, reads of others what is theirs where
/// it sees them; in a pid namespace of its own it does not see them.
async fn processes_of_others_and_of_the_host_are_closed_with_a_pid_namespace(rig: &Rig) {
    let (other, others, _output) = run_private(rig, "other", "exec sleep 1000").await;
    let (hosts, _) = rig.start_shell("hosts", "exec sleep 1000").await;
    let host = rig.engine.state(&hosts).await.unwrap().process.unwrap();
    let script = |pid: u32| {
        format!(
            "cat /proc/{pid}/environ | tr '\\0' '\\n' | grep -c ^REAPER_TEST_MARK; ls -d /proc/{pid}/root/etc; kill -0 {pid} && echo signalled"
        )
    };
    let open = "1\n/proc/PID/root/etc\nsignalled";
    let (own, _, _output) = run_private(rig, "own", "exec sleep 1000").await;
    for process in [
        &others,
        &host,
        rig.engine
            .state(&own)
            .await
            .unwrap()
            .monitor
            .as_ref()
            .unwrap(),
    ] {
        let pid = process.pid;
        // The pid is none of this namespace, which has few.
        let seen = shown(
            rig,
            &own,
            &format!("look-{pid}"),
            &format!("({}) 2>/dev/null", script(pid)),
        )
        .await;
        assert_eq!(seen, "0", "{pid}");
    }
    // What it is closed against: without one, root sees all that.
    let seen = shown(rig, &hosts, "look", &script(others.pid)).await;
    assert_eq!(seen, open.replace("PID", &others.pid.to_string()));
    for id in [&other, &hosts, &own] {
        delete(rig, id).await;
    }
}
