//! Which container has a cgroup that several name.

use std::{path::Path, process::Command, thread};

use super::*;

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

/// Between its mkdir(2) and its claim another container may be killed, or only be slow.
#[test]
fn a_cgroup_that_another_container_is_making_is_not_an_admins() {
    let name = unique();
    let hierarchy = hierarchy();
    let folder = hierarchy.root().join(&name);
    folder::make(&folder, hierarchy.root()).expect("make");
    let cgroup = ContainerCgroup::create(&hierarchy, Path::new(&name), &own(true)).expect("create");
    assert!(!cgroup.stays());
    // The slow one is refused now, though it has made it.
    let mut monitor = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let slow = ContainerCgroup::create(&hierarchy, Path::new(&name), &claim_of(monitor.id(), true));
    assert!(matches!(slow, Err(Error::Claimed(_))), "{slow:?}");
    monitor.kill().expect("kill");
    monitor.wait().expect("wait");
    cgroup.remove().expect("remove");
    assert!(!folder.exists());
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
        assert_eq!(folder.exists(), is_admins);
        if is_admins {
            std::fs::remove_dir(&folder).expect("nothing is in it");
        }
    }
}
