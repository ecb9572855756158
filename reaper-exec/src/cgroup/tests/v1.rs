//! Cgroups of version 1, where this machine has them.

use std::{
    path::{Path, PathBuf},
    thread,
};

use super::*;

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
fn what_is_frozen_by_version_1_is_killed_once_and_not_until_it_is_gone() {
    let Some((freezer, _)) = of_v1_with_one_below("freezer") else {
        return;
    };
    let scratch = Scratch::new();
    let leaf = scratch.0.add_leaf("init").expect("leaf");
    let mut children: Vec<_> = (0..3).map(|_| spawn_in(&leaf, "exec sleep 1000")).collect();
    for child in &children {
        let procs = freezer.path().join("cgroup.procs");
        std::fs::write(procs, child.id().to_string()).expect("joined");
    }
    let mut rounds = 0;
    let kill = |cgroup: &Path, signal| {
        rounds += 1;
        subtree::signal(cgroup, signal)
    };
    let states = ["FROZEN", "THAWED"];
    subtree::kill_while_frozen(freezer.path(), "freezer.state", states, kill).expect("kill");
    assert!(
        rounds <= 2,
        "{rounds} rounds, of which the second reaches none but the first's"
    );
    for child in &mut children {
        child.wait().expect("wait");
    }
    freezer.remove().expect("remove");
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
