use std::{
    os::fd::AsFd as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use proptest::prelude::*;

use super::{hierarchy::cgroup2_mounts, subtree::parse_events, *};

/// The machine's hierarchy of version 2. Where it has version 1 alone, this thread and those that it
/// starts get a mount of it.
fn hierarchy() -> Hierarchy {
    if let Some(found) = Hierarchy::find().expect("mountinfo") {
        return found;
    }
    let dir = PathBuf::from("/tmp/reaper-exec-cgroup2");
    if let Some(mounted) = Hierarchy::at(&dir) {
        return mounted;
    }
    std::fs::create_dir_all(&dir).expect("a directory for it");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mounts of its own");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let none = MsFlags::empty();
    mount(Some("test"), &dir, Some("cgroup2"), none, None::<&str>)
        .expect("these tests need a kernel with cgroup v2");
    Hierarchy::at(&dir).expect("the hierarchy that was mounted")
}

/// A name that no other test has.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("reaper-exec-test-{}-{number}", std::process::id())
}

/// This process's claim.
fn own(is_named: bool) -> Claim {
    claim_of(std::process::id(), is_named)
}

fn claim_of(pid: u32, is_named: bool) -> Claim {
    let owner = crate::procfs::identify(pid).expect("a process");
    Claim::new(owner, is_named)
}

/// A container's cgroup that is emptied and removed at the end, however the test ends.
struct Scratch(ContainerCgroup);

impl Scratch {
    fn new() -> Self {
        Self::at(Path::new(&unique()))
    }

    fn at(relative: &Path) -> Self {
        Self(ContainerCgroup::create(&hierarchy(), relative, &own(false)).expect("create"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.path().exists() {
            self.0.kill().expect("kill");
            until_empty(&self.0);
            self.0.remove().expect("remove");
        }
    }
}

/// Waits until the kernel reports what `done` looks for.
fn until(cgroup: &ContainerCgroup, done: impl Fn(Events) -> bool) {
    let file = cgroup.events_fd().expect("events");
    while !done(read_events(&file).expect("read")) {
        poll(
            &mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)],
            PollTimeout::NONE,
        )
        .expect("poll");
    }
}

fn until_empty(cgroup: &ContainerCgroup) {
    until(cgroup, |events| !events.populated);
}

/// A child of this process in a leaf.
fn spawn_in(leaf: &Leaf, script: &str) -> Child {
    // The shell joins by itself, and then says so by closing its output.
    let procs = leaf.path().join("cgroup.procs");
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("echo 0 > \"$0\" && exec >/dev/null && {script}"),
        ])
        .arg(procs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("sh");
    let mut out = child.stdout.take().expect("stdout");
    std::io::copy(&mut out, &mut std::io::sink()).expect("joined");
    child
}

fn sorted(mut pids: Vec<(u32, String)>) -> Vec<(u32, String)> {
    pids.sort();
    pids
}

#[test]
fn cgroup_is_created_joined_and_removed() {
    let scratch = Scratch::new();
    let cgroup = &scratch.0;
    assert!(!cgroup.populated().expect("populated"));
    let (init, exec) = (
        cgroup.add_leaf("init").expect("init"),
        cgroup.add_leaf("exec-1").expect("exec"),
    );
    let mut first = spawn_in(&init, "sleep 1000");
    let mut second = spawn_in(&exec, "exec sleep 1000");
    assert!(cgroup.populated().expect("populated"));
    let pids = cgroup.pids().expect("pids");
    assert!(pids.contains(&(first.id(), "init".into())), "{pids:?}");
    assert!(pids.contains(&(second.id(), "exec-1".into())), "{pids:?}");
    assert_eq!(exec.pids().expect("pids"), [second.id()]);
    assert!(matches!(cgroup.remove(), Err(Error::Populated(_))));
    assert!(matches!(init.remove(), Err(Error::Populated(_))));
    exec.kill().expect("kill the exec");
    second.wait().expect("wait");
    assert!(!exec.populated().expect("populated"));
    assert!(init.populated().expect("populated"));
    exec.remove().expect("remove");
    exec.remove().expect("again");
    cgroup.kill().expect("kill");
    first.wait().expect("wait");
    until_empty(cgroup);
    cgroup.remove().expect("remove");
    cgroup.remove().expect("again");
    assert!(!cgroup.path().exists());
    assert!(cgroup.pids().expect("none").is_empty());
    assert!(!cgroup.populated().expect("none"));
    cgroup.kill().expect("nothing to be killed");
    assert_eq!(cgroup.signal(libc::SIGTERM).expect("nothing"), 0);
}

#[test]
fn only_the_ancestors_that_were_made_are_removed() {
    let hierarchy = hierarchy();
    let theirs = hierarchy.root().join(unique());
    std::fs::create_dir(&theirs).expect("a cgroup of somebody else");
    let ours = Path::new(theirs.file_name().expect("name")).join("a/b");
    let first = Scratch::at(&ours.join("first"));
    let second = Scratch::at(&ours.join("second"));
    first.0.remove().expect("remove");
    assert!(second.0.path().exists(), "another container's parent stays");
    second.0.remove().expect("remove");
    assert!(!theirs.join("a").exists(), "made for containers, and empty");
    assert!(theirs.exists(), "somebody else's");
    std::fs::remove_dir(&theirs).expect("it is empty");
}

#[test]
fn containers_that_come_and_go_below_one_parent_do_not_disturb_each_other() {
    let parent = unique();
    thread::scope(|scope| {
        for worker in 0..4 {
            let parent = PathBuf::from(&parent).join("deep/er");
            scope.spawn(move || {
                for round in 0..100 {
                    let cgroup = Scratch::at(&parent.join(format!("{worker}-{round}")));
                    cgroup.0.add_leaf("init").expect("leaf");
                    cgroup.0.remove().expect("remove");
                }
            });
        }
    });
    assert!(!hierarchy().root().join(parent).exists());
}

#[test]
fn an_empty_leftover_is_reused_and_a_populated_one_refused() {
    let name = unique();
    let scratch = Scratch::at(Path::new(&name));
    let leaf = scratch.0.add_leaf("exec-old").expect("leaf");
    std::fs::create_dir(leaf.path().join("below")).expect("the workload's own");
    drop(Scratch::at(Path::new(&name)));
    assert!(!leaf.path().exists());
    let scratch = Scratch::at(Path::new(&name));
    let mut child = spawn_in(
        &scratch.0.add_leaf("init").expect("leaf"),
        "exec sleep 1000",
    );
    let refusal =
        ContainerCgroup::create(&hierarchy(), Path::new(&name), &own(false)).expect_err("in use");
    assert!(refusal.to_string().contains(&name), "{refusal}");
    assert!(matches!(refusal, Error::Populated(_)));
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn a_cgroup_that_was_there_stays_with_what_is_in_it() {
    let name = unique();
    let folder = hierarchy().root().join(&name);
    std::fs::create_dir(&folder).expect("an admin's");
    std::fs::create_dir(folder.join("below")).expect("an admin's");
    for _ in 0..2 {
        let claim = own(true);
        let looked = ContainerCgroup::at_if_empty(&hierarchy(), Path::new(&name), &claim);
        assert!(looked.expect("empty").stays());
        let cgroup = ContainerCgroup::create(&hierarchy(), Path::new(&name), &claim);
        let cgroup = cgroup.expect("create");
        assert!(cgroup.stays());
        cgroup.add_leaf("init").expect("leaf");
        cgroup.add_leaf("exec-1").expect("leaf");
        cgroup.remove().expect("remove");
        cgroup.remove().expect("again");
        let left: Vec<_> = subtree::children(&folder).expect("it is there");
        assert_eq!(left, [folder.join("below")]);
    }
    // Below /reaper there are none but containers', so that one is what another has left.
    let cgroup = ContainerCgroup::create(&hierarchy(), Path::new(&name), &own(false));
    cgroup.expect("create").remove().expect("remove");
    assert!(!folder.exists());
}

#[test]
fn a_cgroup_is_one_containers_as_long_as_its_monitor_runs() {
    for is_admins in [true, false] {
        let name = unique();
        let folder = hierarchy().root().join(&name);
        if is_admins {
            std::fs::create_dir(&folder).expect("an admin's");
        }
        let mut monitor = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let theirs = claim_of(monitor.id(), true);
        let cgroup = ContainerCgroup::create(&hierarchy(), Path::new(&name), &theirs);
        let cgroup = cgroup.expect("create");
        let again = || ContainerCgroup::create(&hierarchy(), Path::new(&name), &own(true));
        let refusal = again().expect_err("another container's");
        assert!(matches!(refusal, Error::Claimed(_)), "{refusal}");
        let at = ContainerCgroup::at_if_empty(&hierarchy(), Path::new(&name), &own(true));
        assert!(matches!(at, Err(Error::Claimed(_))), "{at:?}");
        monitor.kill().expect("kill");
        monitor.wait().expect("wait");
        // It was killed, and what it had can be had: then that is no longer what its record names.
        assert!(!theirs.is_lost(cgroup.path()));
        let cgroup = again().expect("create");
        assert!(theirs.is_lost(cgroup.path()) && !own(true).is_lost(cgroup.path()));
        cgroup.remove().expect("remove");
        assert_eq!(folder.exists(), is_admins, "an admin's stays");
        if is_admins {
            std::fs::remove_dir(&folder).expect("nothing is in it");
        }
    }
}

#[test]
fn of_many_that_name_one_cgroup_at_once_one_has_it() {
    for (is_admins, is_left) in [(true, false), (true, true), (false, false)] {
        let name = unique();
        let folder = hierarchy().root().join(&name);
        if is_admins {
            std::fs::create_dir(&folder).expect("an admin's");
        }
        if is_left {
            let mut killed = Command::new("sleep").arg("1000").spawn().expect("sleep");
            let theirs = claim_of(killed.id(), true);
            let had = ContainerCgroup::create(&hierarchy(), Path::new(&name), &theirs);
            assert!(had.expect("create").stays());
            killed.kill().expect("kill");
            killed.wait().expect("wait");
        }
        let mut monitors: Vec<_> = (0..8)
            .map(|_| Command::new("sleep").arg("1000").spawn().expect("sleep"))
            .collect();
        let claims: Vec<_> = monitors
            .iter()
            .map(|monitor| claim_of(monitor.id(), true))
            .collect();
        let hierarchy = hierarchy();
        let start = std::sync::Barrier::new(claims.len());
        let create = |claim| {
            start.wait();
            ContainerCgroup::create(&hierarchy, Path::new(&name), claim)
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = claims.iter().map(|c| scope.spawn(|| create(c))).collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("joined"))
                .collect()
        });
        assert_eq!(results.iter().flatten().count(), 1, "{results:?}");
        for monitor in &mut monitors {
            monitor.kill().expect("kill");
            monitor.wait().expect("wait");
        }
        for cgroup in results.iter().flatten() {
            cgroup.remove().expect("remove");
        }
        if folder.exists() {
            std::fs::remove_dir(&folder).expect("nothing is in it");
        }
    }
}

#[test]
fn exec_gets_new_leaf_when_earlier_leaf_still_has_processes() {
    let scratch = Scratch::new();
    let earlier = scratch.0.add_leaf("exec-x").expect("leaf");
    let mut left = spawn_in(&earlier, "exec sleep 1000");
    let later = scratch.0.add_leaf("exec-x").expect("leaf");
    assert_ne!(earlier.path(), later.path());
    let mut child = spawn_in(&later, "exec sleep 1000");
    assert_eq!(
        sorted(scratch.0.pids().expect("pids")),
        sorted(vec![
            (left.id(), "exec-x".into()),
            (child.id(), "exec-x".into())
        ])
    );
    later.kill().expect("kill");
    child.wait().expect("wait");
    assert!(earlier.populated().expect("populated"));
    assert_eq!(
        scratch.0.add_leaf("exec-x").expect("leaf").path(),
        later.path(),
        "empty again"
    );
    left.kill().expect("kill");
    left.wait().expect("wait");
}

/// Of a hierarchy without controllers, as a hybrid's, only the creation itself is seen.
#[test]
fn enabled_controllers_have_their_files_when_many_create_below_a_new_parent() {
    let hierarchy = hierarchy();
    for _ in 0..20 {
        let parent = unique();
        let start = std::sync::Barrier::new(8);
        let create = |number: u32| {
            let path = Path::new(&parent).join(number.to_string());
            start.wait();
            let cgroup = ContainerCgroup::create(&hierarchy, &path, &own(true)).expect("create");
            let enabled = cgroup.controllers().expect("controllers");
            let missing: Vec<_> = [
                ("cpu", "cpu.max"),
                ("memory", "memory.max"),
                ("pids", "pids.max"),
            ]
            .into_iter()
            .filter(|(name, _)| enabled.iter().any(|enabled| enabled == name))
            .filter(|(_, file)| !cgroup.path().join(file).exists())
            .collect();
            // Others are still at it: the parent is removed and made again meanwhile.
            cgroup.remove().expect("remove");
            missing
        };
        thread::scope(|scope| {
            let create = &create;
            let running: Vec<_> = (0..8).map(|n| scope.spawn(move || create(n))).collect();
            for thread in running {
                assert_eq!(thread.join().expect("joined"), []);
            }
        });
        assert!(!hierarchy.root().join(&parent).exists());
    }
}

#[test]
fn invalid_cgroup_paths_and_leaf_names_are_refused() {
    let hierarchy = hierarchy();
    for path in ["", "/", "/absolute", "..", "a/../b", "./a"] {
        let result = ContainerCgroup::create(&hierarchy, Path::new(path), &own(true));
        assert!(
            matches!(result, Err(Error::Path(_))),
            "{path:?}: {result:?}"
        );
    }
    let scratch = Scratch::new();
    for name in ["", ".", "..", "a/b", "a\0", "a~2"] {
        assert!(
            matches!(scratch.0.add_leaf(name), Err(Error::Path(_))),
            "{name:?}"
        );
    }
}

#[test]
fn deserialised_cgroup_is_enough_to_kill_and_remove() {
    let scratch = Scratch::at(&Path::new(&unique()).join("x"));
    let mut child = spawn_in(
        &scratch.0.add_leaf("init").expect("leaf"),
        "exec sleep 1000",
    );
    let json = serde_json::to_string(&scratch.0).expect("serialise");
    let read: ContainerCgroup = serde_json::from_str(&json).expect("deserialise");
    assert_eq!(read, scratch.0);
    read.kill().expect("kill");
    child.wait().expect("wait");
    until_empty(&read);
    read.remove().expect("remove");
    assert!(!scratch.0.path().parent().expect("parent").exists());
}

#[test]
fn a_signal_reaches_every_process_and_no_other() {
    let scratch = Scratch::new();
    let bystander = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let leaf = scratch.0.add_leaf("init").expect("leaf");
    let below = leaf.path().join("below");
    std::fs::create_dir(&below).expect("the workload's own");
    let mut children: Vec<Child> = (0..3).map(|_| spawn_in(&leaf, "exec sleep 1000")).collect();
    let exec = scratch.0.add_leaf("exec-1").expect("leaf");
    children.push(spawn_in(&exec, "exec sleep 1000"));
    children.push(spawn_in(&Leaf::new(below), "exec sleep 1000"));
    assert_eq!(scratch.0.signal(0).expect("signal"), 5, "0 only counts");
    // A real-time signal ends them too, and tells that this is what did it.
    let signal = libc::SIGRTMIN() + 3;
    assert_eq!(scratch.0.signal(signal).expect("signal"), 5);
    for mut child in children {
        let status = child.wait().expect("wait");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(signal)
        );
    }
    let mut bystander = bystander;
    assert!(bystander.try_wait().expect("wait").is_none());
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
}

#[test]
fn processes_that_fork_away_are_killed_in_one_step_or_one_by_one() {
    for kill in [subtree::kill, subtree::kill_one_by_one] {
        let scratch = Scratch::new();
        let leaf = scratch.0.add_leaf("init").expect("leaf");
        // Each round's child is a daemon that starts the next round and ends.
        let script =
            "export loop='setsid sh -c \"$loop\" & exit 0'; sh -c \"$loop\"; exec sleep 1000";
        let mut child = spawn_in(&leaf, script);
        kill(scratch.0.path()).expect("kill");
        child.wait().expect("wait");
        until_empty(&scratch.0);
        assert!(scratch.0.pids().expect("pids").is_empty());
        scratch.0.remove().expect("remove");
    }
}

#[test]
fn frozen_cgroup_reports_frozen_and_can_be_killed() {
    let scratch = Scratch::new();
    let mut child = spawn_in(
        &scratch.0.add_leaf("init").expect("leaf"),
        "exec sleep 1000",
    );
    assert!(!scratch.0.is_frozen().expect("frozen"));
    scratch.0.freeze(true).expect("freeze");
    until(&scratch.0, |events| events.frozen);
    assert!(scratch.0.is_frozen().expect("frozen"));
    scratch.0.freeze(false).expect("thaw");
    until(&scratch.0, |events| !events.frozen);
    scratch.0.freeze(true).expect("freeze");
    scratch.0.kill().expect("kill");
    child.wait().expect("wait");
}

/// A cgroup of this machine's version 1, with one that the workload has made below it; `None` where there is no
/// such controller.
fn of_v1_with_one_below(controller: &str) -> Option<(V1Cgroup, PathBuf)> {
    let hierarchies = V1Hierarchy::find().expect("hierarchies");
    let Some(hierarchy) = hierarchies.iter().find(|found| found.has(controller)) else {
        eprintln!("not tried: version 1 has no {controller} here");
        return None;
    };
    let cgroup = V1Cgroup::create(hierarchy, Path::new(&unique()), &own(false)).expect("create");
    let below = cgroup.path().join("below");
    std::fs::create_dir(&below).expect("the workload's own");
    Some((cgroup, below))
}

#[test]
fn what_others_have_frozen_by_version_1_is_killed() {
    for by_v2 in [false, true] {
        let Some((freezer, below)) = of_v1_with_one_below("freezer") else {
            return;
        };
        for frozen in [freezer.path(), &below] {
            let scratch = Scratch::new();
            let leaf = scratch.0.add_leaf("init").expect("leaf");
            let mut child = spawn_in(&leaf, "exec sleep 1000");
            let procs = below.join("cgroup.procs");
            std::fs::write(procs, child.id().to_string()).expect("joined");
            let state = frozen.join("freezer.state");
            std::fs::write(&state, "FROZEN").expect("freeze");
            while std::fs::read_to_string(&state).expect("a state") != "FROZEN\n" {
                thread::yield_now();
            }
            let v2 = by_v2.then_some(&scratch.0);
            let description = serde_json::json!({ "cgroup": v2, "cgroups_v1": [freezer] });
            let cgroups: Cgroups = serde_json::from_value(description).expect("a description");
            cgroups.kill().expect("kill");
            let (sender, ended) = std::sync::mpsc::channel();
            let waiter = thread::spawn(move || {
                child.wait().expect("wait");
                sender.send(()).expect("a receiver");
            });
            let ended = ended.recv_timeout(std::time::Duration::from_secs(20));
            std::fs::write(&state, "THAWED").expect("thaw");
            waiter.join().expect("joined");
            ended.expect("it ends while no other thaws it");
        }
        freezer.remove().expect("remove");
    }
}

#[test]
fn kills_for_lack_of_memory_below_a_cgroup_of_version_1_count() {
    let Some((memory, below)) = of_v1_with_one_below("memory") else {
        return;
    };
    let cgroups = Cgroups::of_v1(vec![memory]);
    assert_eq!(cgroups.oom_kills(), Some(0));
    std::fs::write(below.join("memory.limit_in_bytes"), "16M").expect("a limit");
    // tail(1) keeps a line in memory, which has no end here.
    let mut eater = spawn_in(&Leaf::new(below), "exec tail /dev/zero");
    assert!(!eater.wait().expect("wait").success());
    assert!(cgroups.oom_kills() > Some(0), "{:?}", cgroups.oom_kills());
    cgroups.remove().expect("remove");
}

#[test]
fn a_threaded_cgroup_is_killed_with_all_its_processes() {
    let scratch = Scratch::new();
    let domain = scratch.0.path().join("domain");
    let threaded = domain.join("threaded");
    std::fs::create_dir_all(threaded.join("below")).expect("the workload's own");
    let mut children: Vec<_> = (0..2)
        .map(|_| spawn_in(&Leaf::new(domain.clone()), "exec sleep 1000"))
        .collect();
    for (cgroup, child) in [threaded.clone(), threaded.join("below")]
        .iter()
        .zip(&children)
    {
        std::fs::write(cgroup.join("cgroup.type"), "threaded").expect("threaded");
        std::fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("joined");
    }
    subtree::kill(&threaded).expect("kill");
    for child in &mut children {
        child.wait().expect("wait");
    }
}

#[test]
fn cpu_time_is_counted_over_the_life_of_the_container() {
    let scratch = Scratch::new();
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    let mut child = spawn_in(&scratch.0.add_leaf("init").expect("leaf"), script);
    child.wait().expect("wait");
    let cgroups: Cgroups = serde_json::from_value(serde_json::json!({
        "cgroup": scratch.0,
    }))
    .expect("a description");
    let stats = cgroups.stats();
    assert!(stats.cpu.is_some_and(|cpu| cpu.usage_ns > 0));
}

#[test]
fn a_threaded_cgroup_is_named_as_the_reason() {
    let scratch = Scratch::new();
    let leaf = scratch.0.add_leaf("init").expect("leaf");
    std::fs::write(leaf.path().join("cgroup.type"), "threaded").expect("threaded");
    let invalid = scratch.0.add_leaf("exec-1").expect("leaf");
    let refusal = invalid.join_self().expect_err("invalid");
    assert!(refusal.to_string().contains("exec-1"), "{refusal}");
    assert!(
        matches!(&refusal, Error::Type { kind, .. } if kind == "domain invalid"),
        "{refusal:?}"
    );
    let gone = scratch
        .0
        .leaf("exec-none")
        .join_self()
        .expect_err("not there");
    assert!(matches!(gone, Error::Io { .. }));
}

#[test]
fn write_distinguishes_missing_cgroup_file_from_refusal() {
    let scratch = Scratch::new();
    assert!(!subtree::write(scratch.0.path(), "cgroup.future", "1").expect("not there"));
    assert!(subtree::write(scratch.0.path(), "cgroup.freeze", "0").expect("there"));
    let refusal = subtree::write(scratch.0.path(), "cgroup.freeze", "x").expect_err("no number");
    assert!(refusal.to_string().contains("cgroup.freeze"), "{refusal}");
}

#[test]
fn nothing_but_a_cgroup2_mount_is_a_hierarchy() {
    assert_eq!(Hierarchy::at(Path::new("/proc")), None);
    assert_eq!(Hierarchy::at(Path::new("/nonexistent")), None);
    let found = hierarchy();
    assert_eq!(Hierarchy::at(found.root()), Some(found.clone()));
}

#[test]
fn mount_points_are_read_from_mountinfo() {
    let lines = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:2 - cgroup2 cgroup2 rw\n\
        42 31 0:38 /docker/x /var/lib/x rw - cgroup2 cgroup2 rw\n\
        43 31 0:38 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n\
        44 31 0:38 / /short\n";
    let expected = ["/sys/fs/cgroup/unified", "/mnt/a b\\c"].map(PathBuf::from);
    assert_eq!(cgroup2_mounts(lines), expected);
    assert!(cgroup2_mounts(&lines[..100]).is_empty(), "v1 alone");
}

/// What the kernel writes for a path.
fn escape(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", c as u32),
            other => other.to_string(),
        })
        .collect()
}

proptest! {
    #[test]
    fn any_escaped_cgroup2_mount_point_is_read_back(path in "/[^\0]{0,40}", tags in 0_usize..4) {
        let tags = " shared:1".repeat(tags);
        let line = format!("1 2 0:3 / {} rw{tags} - cgroup2 cgroup2 rw", escape(&path));
        prop_assert_eq!(cgroup2_mounts(line.as_bytes()), [PathBuf::from(path)]);
    }

    #[test]
    fn parsers_of_cgroup_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), text in ".{0,99}") {
        let _ = cgroup2_mounts(&bytes);
        let _ = parse_events(&bytes);
        let _ = stats::keyed(&text);
    }

    #[test]
    fn events_are_read_in_any_order(populated: bool, frozen: bool, swapped: bool) {
        let mut lines = [
            format!("populated {}\n", u8::from(populated)),
            format!("frozen {}\n", u8::from(frozen)),
        ];
        if swapped {
            lines.swap(0, 1);
        }
        prop_assert_eq!(parse_events(lines.concat().as_bytes()), Events { populated, frozen });
    }
}
