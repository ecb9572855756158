//! What is done to the processes of a cgroup: signals, kills, freezing, and which may join it.

use std::process::{Child, Command};

use super::*;

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
