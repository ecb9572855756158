//! What the spec limits, in the hierarchies that this machine has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use reaper_exec::{
    Executor, Target,
    cgroup::{Hierarchies, Hierarchy, V1Hierarchy},
};
use reaper_spec::{CgroupMode, Resources, Status};
use serde_json::{Value, json};

use crate::rig::{Rig, cases, within_a_minute};

cases! {
    memory_beyond_the_limit_is_killed,
    processes_beyond_the_limit_are_refused,
    a_cpu_quota_throttles,
    a_process_is_in_its_cgroups_before_its_program_runs,
    an_exec_is_in_the_cgroups_of_its_container,
    a_limit_that_the_kernel_refuses_is_named_and_leaves_nothing,
    a_limit_without_a_controller_is_refused_and_leaves_nothing,
    tracked_containers_have_cgroups_and_no_limits,
    without_cgroups_there_are_none,
    a_cgroup_with_processes_of_others_is_refused,
    cgroups_that_were_there_before_stay,
    a_cgroup_that_a_bundle_names_stays_where_it_was_there,
    of_two_containers_that_name_one_cgroup_one_is_refused,
    figures_are_those_of_the_cgroups,
    an_update_changes_what_it_names_or_nothing,
    an_update_is_refused_where_limits_are_not_enforced,
    a_kill_for_lack_of_memory_is_counted_and_others_are_not,
    a_killed_init_is_counted_before_its_exit_is_known,
    a_monitor_is_idle_after_its_containers_cgroup_was_removed,
}

fn resources(document: &Value) -> Resources {
    Resources::parse(document.to_string().as_bytes()).unwrap()
}

/// Where a controller's hierarchy is, if this machine has it in one.
fn hierarchy_of(controller: &str) -> Option<PathBuf> {
    let Hierarchies { v1, v2, .. } = Hierarchies::find().unwrap();
    let found = v1.iter().find(|hierarchy| hierarchy.has(controller));
    let v1 = found.map(|hierarchy| hierarchy.root().to_owned());
    v1.or_else(|| {
        let root = v2?.root().to_owned();
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap();
        controllers
            .split_whitespace()
            .any(|name| name == controller)
            .then_some(root)
    })
}

/// Says which case this machine cannot try.
pub(crate) fn has(controller: &str) -> bool {
    let found = hierarchy_of(controller).is_some();
    if !found {
        eprintln!("not tried: no hierarchy has the controller {controller}");
    }
    found
}

async fn memory_beyond_the_limit_is_killed(rig: &Rig) {
    if !has("memory") {
        return;
    }
    // Without a newline tail keeps all of it.
    let script = "head -c 200000000 /dev/zero | tail > /dev/null; echo $?";
    let (mut new, output) = rig.shell("eater", script);
    new.resources = resources(&json!({"memory": {"limit": 50 << 20}}));
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    let said = output.all();
    // The kernel may take the shell too, while the first process that it has killed is exiting.
    assert!(
        said.ends_with("137\n") || exit.status.code() == 137,
        "{said}, {exit:?}"
    );
    rig.engine.delete(&id, false).await.unwrap();
}

async fn processes_beyond_the_limit_are_refused(rig: &Rig) {
    if !has("pids") {
        return;
    }
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all";
    for (mode, expected) in [(CgroupMode::Enforce, false), (CgroupMode::Track, true)] {
        let (mut new, output) = rig.shell("forks", script);
        new.resources = resources(&json!({"pids": {"limit": 5}}));
        new.monitor.cgroups = mode;
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        rig.engine.start(&id).await.unwrap();
        rig.engine.wait(&id).await.unwrap();
        let output = output.all();
        assert_eq!(output.contains("all"), expected, "{mode:?}: {output}");
        rig.engine.delete(&id, false).await.unwrap();
    }
}

async fn a_cpu_quota_throttles(rig: &Rig) {
    if !has("cpu") {
        return;
    }
    let script = "echo up; while :; do :; done";
    let (mut new, mut output) = rig.shell("burner", script);
    new.resources = resources(&json!({"cpu": {"quota": 2000, "period": 100_000, "shares": 512}}));
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    assert_eq!(output.line(), "up");
    let folder = rig.cgroup_in(&hierarchy_of("cpu").unwrap(), id.as_str());
    let is_throttled = || {
        let stat = fs::read_to_string(folder.join("cpu.stat")).unwrap();
        let times = |line: &str| line.strip_prefix("nr_throttled ").map(|n| n != "0");
        stat.lines().find_map(times).unwrap()
    };
    // A busy machine gives it little, so the quota is less than that, and still it may be long.
    within_a_minute(async {
        while !is_throttled() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    rig.engine.delete(&id, true).await.unwrap();
}

/// The cgroup of a process in each hierarchy in which containers get one.
fn memberships(pid: u32) -> Vec<String> {
    let Hierarchies { v1, v2, .. } = Hierarchies::find().unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let is_used = |controllers: &str| match controllers {
        "" => v2.is_some(),
        names => v1
            .iter()
            .any(|found| names.split(',').all(|name| found.has(name))),
    };
    text.lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .filter(|(controllers, _)| is_used(controllers))
        .map(|(_, path)| path.to_owned())
        .collect()
}

async fn a_process_is_in_its_cgroups_before_its_program_runs(rig: &Rig) {
    let (new, _output) = rig.shell("born", "exit 0");
    let id = new.id.clone();
    let (record, _) = rig.engine.create(new).await.unwrap();
    let memberships = memberships(record.process.as_ref().unwrap().pid);
    for path in &memberships {
        assert!(path.contains("/born"), "{memberships:?}");
    }
    // The monitor is not limited with its container.
    let monitor = record.monitor.as_ref().unwrap().pid;
    let of_monitor = fs::read_to_string(format!("/proc/{monitor}/cgroup")).unwrap();
    assert!(!of_monitor.contains("/born"), "{of_monitor}");
    rig.engine.delete(&id, true).await.unwrap();
}

async fn an_exec_is_in_the_cgroups_of_its_container(rig: &Rig) {
    let (id, _output) = rig.start_shell("host", "exec sleep 1000").await;
    let (target, output) = rig.exec_shell(&id, "look", "cat /proc/self/cgroup").await;
    rig.engine.executor().wait(&target).await.unwrap();
    let text = output.all();
    let Hierarchies { v1, v2, .. } = Hierarchies::find().unwrap();
    let expected = v1.len() + usize::from(v2.is_some());
    assert_eq!(text.matches("/host").count(), expected, "{text}");
    assert!(matches!(target, Target::Exec(..)));
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_limit_that_the_kernel_refuses_is_named_and_leaves_nothing(rig: &Rig) {
    if !has("cpuset") {
        return;
    }
    let (mut new, _output) = rig.shell("wrong", "exit 0");
    new.resources = resources(&json!({"cpu": {"cpus": "99999"}}));
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    for part in [
        "linux.resources.cpu.cpus",
        "cpuset.cpus",
        "\"99999\"",
        "os error",
    ] {
        assert!(error.contains(part), "{part} is missing: {error}");
    }
}

async fn a_limit_without_a_controller_is_refused_and_leaves_nothing(rig: &Rig) {
    let (mut new, _output) = rig.shell("wrong", "exit 0");
    new.resources = resources(&json!({"unified": {"nosuch.max": "1"}}));
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    for part in [
        "linux.resources.unified[\"nosuch.max\"]",
        "controller nosuch",
        "cgroups = ",
    ] {
        assert!(error.contains(part), "{part} is missing: {error}");
    }
}

async fn tracked_containers_have_cgroups_and_no_limits(rig: &Rig) {
    let (mut new, _output) = rig.shell("tracked", "exit 0");
    // An error, were it enforced.
    new.resources = resources(&json!({"unified": {"nosuch.max": "1"}}));
    new.monitor.cgroups = CgroupMode::Track;
    let id = new.id.clone();
    let (record, _) = rig.engine.create(new).await.unwrap();
    let memberships = memberships(record.process.as_ref().unwrap().pid);
    for path in &memberships {
        assert!(path.contains("/tracked"), "{memberships:?}");
    }
    rig.engine.delete(&id, true).await.unwrap();
}

async fn without_cgroups_there_are_none(rig: &Rig) {
    let (mut new, _output) = rig.shell("none", "exit 0");
    new.resources = resources(&json!({"memory": {"limit": 50 << 20}}));
    new.monitor.cgroups = CgroupMode::Off;
    let id = new.id.clone();
    let (record, _) = rig.engine.create(new).await.unwrap();
    assert_eq!(record.status, Status::Created);
    assert!(rig.cgroups("").is_empty());
    rig.engine.delete(&id, true).await.unwrap();
}

/// Every hierarchy's root.
fn roots() -> Vec<PathBuf> {
    let Hierarchies { v1, v2, .. } = Hierarchies::find().unwrap();
    let v1 = v1.iter().map(V1Hierarchy::root);
    let all = v2.iter().map(Hierarchy::root).chain(v1);
    all.map(Path::to_owned).collect()
}

async fn a_cgroup_with_processes_of_others_is_refused(rig: &Rig) {
    for root in roots() {
        let folder = rig.cgroup_in(&root, "taken");
        fs::create_dir_all(&folder).unwrap();
        // No process can join a new cpuset of version 1.
        for (parent, file) in ["cpuset.cpus", "cpuset.mems"].map(|file| (&root, file)) {
            if let Ok(value) = fs::read_to_string(parent.join(file)) {
                fs::write(folder.parent().unwrap().join(file), &value).unwrap();
                fs::write(folder.join(file), &value).unwrap();
            }
        }
        let mut other = Command::new("sh")
            .args([
                "-c",
                "echo 0 > \"$0\" && exec >/dev/null && exec sleep 1000",
            ])
            .arg(folder.join("cgroup.procs"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut joined = other.stdout.take().unwrap();
        std::io::copy(&mut joined, &mut std::io::sink()).unwrap();
        let (new, _output) = rig.shell("taken", "exit 0");
        let error = rig.engine.create(new).await.unwrap_err().to_string();
        assert!(
            error.contains("holds processes"),
            "{}: {error}",
            root.display()
        );
        assert!(error.contains(folder.to_str().unwrap()), "{error}");
        assert!(other.try_wait().unwrap().is_none(), "it was killed");
        other.kill().unwrap();
        other.wait().unwrap();
        // It was not made by Reaper.
        fs::remove_dir(&folder).unwrap();
        fs::remove_dir(folder.parent().unwrap()).unwrap();
    }
}

async fn cgroups_that_were_there_before_stay(rig: &Rig) {
    let parents: Vec<PathBuf> = roots()
        .iter()
        .map(|root| rig.cgroup_in(root, "pod"))
        .collect();
    for parent in &parents {
        fs::create_dir_all(parent).unwrap();
    }
    let (mut new, _output) = rig.shell("kept", "exit 0");
    let below = rig.cgroup_in(Path::new("/"), "pod/kept");
    new.cgroups_path = Some(below.to_str().unwrap().parse().unwrap());
    let id = new.id.clone();
    let (record, _) = rig.engine.create(new).await.unwrap();
    for path in memberships(record.process.as_ref().unwrap().pid) {
        assert!(path.contains("/pod/kept"), "{path}");
    }
    rig.engine.delete(&id, true).await.unwrap();
    for parent in &parents {
        assert!(!parent.join("kept").exists(), "{}", parent.display());
        fs::remove_dir(parent).expect("the parent, as it was");
        fs::remove_dir(parent.parent().unwrap()).unwrap();
    }
}

async fn a_cgroup_that_a_bundle_names_stays_where_it_was_there(rig: &Rig) {
    let folders: Vec<PathBuf> = roots()
        .iter()
        .map(|root| rig.cgroup_in(root, "admins"))
        .collect();
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
    }
    for end in ["deleted", "killed"] {
        let (mut new, _output) = rig.shell(end, "exec sleep 1000");
        let path = rig.cgroup_in(Path::new("/"), "admins");
        new.cgroups_path = Some(path.to_str().unwrap().parse().unwrap());
        let id = new.id.clone();
        let (record, _) = rig.engine.create(new).await.unwrap();
        for path in memberships(record.process.as_ref().unwrap().pid) {
            assert!(path.contains("/admins"), "{path}");
        }
        if end == "killed" {
            let pid = record.monitor.as_ref().unwrap().pid;
            let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        rig.engine.delete(&id, true).await.unwrap();
    }
    for folder in &folders {
        // Without the leaves.
        fs::remove_dir(folder).expect("the cgroup, as it was");
        fs::remove_dir(folder.parent().unwrap()).unwrap();
    }
}

async fn of_two_containers_that_name_one_cgroup_one_is_refused(rig: &Rig) {
    let path = rig.cgroup_in(Path::new("/"), "one");
    let container = |name: &str| {
        let (mut new, output) = rig.shell(name, "exec sleep 1000");
        new.cgroups_path = Some(path.to_str().unwrap().parse().unwrap());
        (new, output)
    };
    for _ in 0..10 {
        let ((first, _one), (second, _two)) = (container("first"), container("second"));
        let ids = [first.id.clone(), second.id.clone()];
        let (first, second) = tokio::join!(rig.engine.create(first), rig.engine.create(second));
        let mut errors = [&first, &second]
            .into_iter()
            .filter_map(|made| made.as_ref().err());
        let error = errors.next().expect("one is refused").to_string();
        assert!(errors.next().is_none(), "both are refused: {error}");
        assert!(
            error.contains("another container's") || error.contains("holds processes"),
            "{error}"
        );
        // The end of the one that was refused has not touched the other's.
        let has = usize::from(first.is_err());
        let state = rig.engine.state(&ids[has]).await.unwrap();
        assert_eq!(state.status, Status::Created);
        rig.engine.delete(&ids[has], true).await.unwrap();
        for root in roots() {
            assert!(!rig.cgroup_in(&root, "one").exists());
        }
    }
}

async fn figures_are_those_of_the_cgroups(rig: &Rig) {
    if !(has("memory") && has("cpu") && has("pids")) {
        return;
    }
    // A child that has exited is counted, and so is what it has left in the page cache.
    let script = "sh -c 'n=0; while [ $n -lt 50000 ]; do n=$((n+1)); done'; \
        head -c 30000000 /dev/zero > \"$0\"; rm \"$0\"; echo done; sleep 1000 & exec sleep 1000";
    let file = rig.root.path().join("file");
    let (stdio, mut output) = crate::output::capture();
    let process = rig.process(&["/bin/sh", "-c", script, file.to_str().unwrap()]);
    let mut new = rig.container("figures", process, stdio);
    new.resources = resources(&json!({
        "memory": {"limit": 256 << 20}, "pids": {"limit": 77},
        "cpu": {"quota": 20_000, "period": 20_000},
    }));
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    assert_eq!(output.line(), "done");
    let stats = rig.engine.executor().stats(&id).await.unwrap();
    let cgroups = stats.cgroups.as_ref().expect("cgroups");
    let cpu = cgroups.cpu.as_ref().expect("cpu");
    assert!(cpu.usage_ns > 1_000_000, "{cpu:?}");
    assert!(cpu.user_ns <= cpu.usage_ns && cpu.periods > 0, "{cpu:?}");
    assert_eq!(
        (stats.cpu_user_ns, stats.cpu_system_ns),
        (cpu.user_ns, cpu.system_ns)
    );
    let memory = cgroups.memory.as_ref().expect("memory");
    assert_eq!(memory.memory.limit, Some(256 << 20));
    assert!(
        memory.memory.usage > 0 && memory.memory.peak >= memory.memory.usage
            || memory.memory.peak == 0,
        "{memory:?}"
    );
    assert!(memory.inactive_file() <= memory.memory.usage, "{memory:?}");
    assert_eq!(stats.memory_bytes, memory.memory.usage);
    assert_eq!(memory.oom_kills, Some(0));
    let pids = cgroups.pids.as_ref().expect("pids");
    assert!(
        (1..=2).contains(&pids.current) && pids.limit == Some(77),
        "{pids:?}"
    );
    let again = rig.engine.executor().stats(&id).await.unwrap();
    assert!(again.cpu_user_ns >= stats.cpu_user_ns && again.cpu_system_ns >= stats.cpu_system_ns);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_kill_for_lack_of_memory_is_counted_and_others_are_not(rig: &Rig) {
    if !has("memory") {
        return;
    }
    let executor = rig.engine.executor();
    // The first of its children is killed by the kernel, the second is not, and nor is init.
    let script = "head -c 200000000 /dev/zero | tail > /dev/null; echo first; \
        sh -c 'kill -9 $$'; echo second; read line; exec sleep 1000";
    let (mut new, mut output) = rig.shell("oom", script);
    new.resources = resources(&json!({"memory": {"limit": 50 << 20}}));
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let (counted, ()) = tokio::join!(executor.oom_kills(&id, 0), async {
        rig.engine.start(&id).await.unwrap();
    });
    assert_eq!(counted.unwrap(), 1);
    // The shell says which of its children were killed.
    let second = move || while output.line() != "second" {};
    tokio::task::spawn_blocking(second).await.unwrap();
    let stats = executor.stats(&id).await.unwrap();
    assert_eq!(stats.cgroups.unwrap().memory.unwrap().oom_kills, Some(1));
    // It is answered with what is known when the container ends.
    let (ended, ()) = tokio::join!(executor.oom_kills(&id, 1), async {
        rig.engine
            .kill(&id, reaper_exec::Signal::KILL, false)
            .await
            .unwrap();
    });
    assert_eq!(ended.unwrap(), 1);
    rig.engine.wait(&id).await.unwrap();
    assert_eq!(executor.oom_kills(&id, 0).await.unwrap(), 1);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_killed_init_is_counted_before_its_exit_is_known(rig: &Rig) {
    if !has("memory") {
        return;
    }
    let executor = rig.engine.executor();
    let script = "exec tail < /dev/zero";
    for (limit, expected) in [(50 << 20, 1), (-1, 0)] {
        let (mut new, _output) = rig.shell("init", script);
        new.resources = resources(&json!({"memory": {"limit": limit}}));
        let id = new.id.clone();
        if expected == 0 {
            // The same end by another hand.
            let (stdio, _output) = crate::output::capture();
            new = rig.container("init", rig.process(&["sleep", "1000"]), stdio);
        }
        rig.engine.create(new).await.unwrap();
        rig.engine.start(&id).await.unwrap();
        if expected == 0 {
            let kill = reaper_exec::Signal::KILL;
            rig.engine.kill(&id, kill, false).await.unwrap();
        }
        assert_eq!(rig.engine.wait(&id).await.unwrap().status.code(), 137);
        assert_eq!(executor.oom_kills(&id, 0).await.unwrap(), expected);
        rig.engine.delete(&id, true).await.unwrap();
    }
}

/// The clock ticks that a process has used.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let times = fields.skip(11).take(2);
    times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

async fn a_monitor_is_idle_after_its_containers_cgroup_was_removed(rig: &Rig) {
    if !has("memory") {
        return;
    }
    let executor = rig.engine.executor();
    let (id, _output) = rig.start_shell("moved", "exec sleep 1000").await;
    let record = rig.engine.state(&id).await.unwrap();
    let (pid, monitor) = (record.process.unwrap().pid, record.monitor.unwrap().pid);
    let watch = executor.oom_kills(&id, 0);
    tokio::pin!(watch);
    // Its request is sent first, and so is there before the answer to a later one.
    tokio::select! {
        biased;
        counted = &mut watch => panic!("{counted:?}"),
        pids = executor.pids(&id) => assert_eq!(pids.unwrap().len(), 1),
    }
    for root in roots() {
        fs::write(root.join("cgroup.procs"), pid.to_string()).unwrap();
        let folder = rig.cgroup_in(&root, "moved");
        let _ = fs::remove_dir(folder.join("init"));
        fs::remove_dir(folder).unwrap();
    }
    let before = ticks(monitor);
    let second = tokio::time::sleep(Duration::from_secs(1));
    tokio::select! {
        counted = &mut watch => panic!("{counted:?}"),
        () = second => {}
    }
    let used = ticks(monitor) - before;
    assert!(used < 10, "{used} clock ticks in a second");
    rig.engine
        .kill(&id, reaper_exec::Signal::KILL, false)
        .await
        .unwrap();
    assert_eq!(watch.await.unwrap(), 0);
    rig.engine.delete(&id, true).await.unwrap();
}

/// What is in a file of a container's cgroup.
fn read(rig: &Rig, id: &str, controller: &str, names: [&str; 2]) -> String {
    let folder = rig.cgroup_in(&hierarchy_of(controller).unwrap(), id);
    let [v1, v2] = names.map(|name| fs::read_to_string(folder.join(name)));
    v1.or(v2).unwrap().trim().to_owned()
}

const SHARES: [&str; 2] = ["cpu.shares", "cpu.weight"];
const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

async fn an_update_changes_what_it_names_or_nothing(rig: &Rig) {
    if !(has("memory") && has("cpu") && has("pids")) {
        return;
    }
    let executor = rig.engine.executor();
    let (mut new, _output) = rig.shell("resized", "exec sleep 1000");
    new.resources = resources(&json!({
        "memory": {"limit": 64 << 20, "swap": 64 << 20}, "pids": {"limit": 5},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
    }));
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let now = || {
        let pids = read(rig, "resized", "pids", ["pids.max", "pids.max"]);
        (
            read(rig, "resized", "memory", MEMORY),
            read(rig, "resized", "cpu", SHARES),
            pids,
        )
    };
    let (_, shares, _) = now();

    // Memory alone would exceed what memory and swap may be together.
    let more = resources(&json!({
        "memory": {"limit": 128 << 20, "swap": 128 << 20}, "pids": {"limit": 50},
    }));
    executor.update(&id, &more).await.unwrap();
    let updated = now();
    assert_eq!(updated, ((128 << 20).to_string(), shares, "50".to_owned()));

    // The last of them is refused when the others are set.
    let wrong = resources(&json!({
        "cpu": {"shares": 1000, "quota": 20_000, "period": 50_000}, "pids": {"limit": 7},
        "memory": {"limit": 96 << 20}, "unified": {"nosuch.max": "1"},
    }));
    let error = executor.update(&id, &wrong).await.unwrap_err().to_string();
    assert!(error.contains("nosuch.max"), "{error}");
    assert_eq!(now(), updated, "all is as it was");
    let quota = read(rig, "resized", "cpu", ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota.starts_with("50000"), "{quota}");

    let in_use = resources(&json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}));
    let error = executor.update(&id, &in_use).await.unwrap_err().to_string();
    assert!(error.contains("bytes are in use"), "{error}");
    assert_eq!(now(), updated);

    rig.engine
        .kill(&id, reaper_exec::Signal::KILL, false)
        .await
        .unwrap();
    rig.engine.wait(&id).await.unwrap();
    let error = executor.update(&id, &more).await.unwrap_err().to_string();
    assert!(error.contains("stopped"), "{error}");
    rig.engine.delete(&id, true).await.unwrap();
}

async fn an_update_is_refused_where_limits_are_not_enforced(rig: &Rig) {
    for mode in [CgroupMode::Track, CgroupMode::Off] {
        let (mut new, _output) = rig.shell("free", "exec sleep 1000");
        new.monitor.cgroups = mode;
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        let limit = resources(&json!({"pids": {"limit": 50}}));
        let error = rig.engine.executor().update(&id, &limit).await.unwrap_err();
        let expected = format!("cgroups = {:?}", mode.as_str());
        assert!(error.to_string().contains(&expected), "{error}");
        rig.engine.delete(&id, true).await.unwrap();
    }
}
