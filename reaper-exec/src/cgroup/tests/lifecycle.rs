//! From the creation of a container's cgroup and its leaves to their removal.

use std::{
    path::{Path, PathBuf},
    thread,
};

use super::*;

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
fn a_cgroup_is_removed_as_soon_as_the_exit_of_its_last_process_is_known() {
    for _ in 0..50 {
        let scratch = Scratch::new();
        let leaf = scratch.0.add_leaf("init").expect("leaf");
        let mut children: Vec<_> = (0..4).map(|_| spawn_in(&leaf, "exec sleep 1000")).collect();
        scratch.0.kill().expect("kill");
        for child in &mut children {
            child.wait().expect("wait");
        }
        scratch.0.remove().expect("remove");
    }
}

#[test]
fn only_the_ancestors_that_were_made_are_removed() {
    let hierarchy = hierarchy();
    let theirs = hierarchy.root().join(unique());
    std::fs::create_dir(&theirs).expect("a cgroup of another program");
    let ours = Path::new(theirs.file_name().expect("name")).join("a/b");
    let first = Scratch::at(&ours.join("first"));
    let second = Scratch::at(&ours.join("second"));
    first.0.remove().expect("remove");
    assert!(second.0.path().exists(), "another container's parent stays");
    second.0.remove().expect("remove");
    assert!(!theirs.join("a").exists(), "made for containers, and empty");
    assert!(theirs.exists(), "another program's");
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
