//! The harness itself: it sees what is left behind, and leaves nothing behind.

use std::{
    fs,
    os::unix::net::UnixListener,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
};

use nix::mount::{MsFlags, mount};
use reaper_tests::{Node, Options, leftovers, on_each, runtime::until, suite::suites};

#[test]
fn leftovers_of_every_kind_are_named() {
    on_each(|node| {
        assert_eq!(leftovers::find(node), Vec::<String>::new());

        let started = Command::new("sh")
            .args(["-c", "setsid sleep 1081 &"])
            .status();
        assert!(started.expect("leave a process").success());
        named(node, "sleep 1081");
        let left = reaper_tests::faults::process_named("sleep 1081");
        reaper_tests::faults::kill(&left);

        let dir = node.work().join("mounted");
        fs::create_dir(&dir).expect("make a folder");
        mount(
            Some("none"),
            &dir,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("mount");
        named(node, &format!("mount {}", dir.display()));
        nix::mount::umount(&dir).expect("umount");

        let cgroup = cgroup_root().join(node.marker()).join("left");
        fs::create_dir_all(&cgroup).expect("make a cgroup");
        named(node, &format!("cgroup {}", cgroup.display()));
        fs::remove_dir(&cgroup).expect("remove the cgroup");

        let state = node
            .state_root()
            .join("ns")
            .join(node.marker())
            .join("left");
        fs::create_dir_all(&state).expect("make a state folder");
        named(node, &format!("state {}", state.display()));
        let socket = UnixListener::bind(state.join("socket")).expect("listen");
        named(
            node,
            &format!("listening socket {}", state.join("socket").display()),
        );
        drop(socket);
        named(node, &format!("file {}", state.join("socket").display()));
        fs::remove_dir_all(&state).expect("remove the state folder");
    });
}

#[test]
fn a_test_that_panics_leaves_nothing_running() {
    for suite in suites() {
        let mut seen = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let node = Node::start(suite, Options::default());
            let sleep = ["/bin/sleep", "1082"];
            node.ctr_run_with("forgotten", &["--detach"], &sleep)
                .assert_success();
            let workload = reaper_tests::faults::process_named("/bin/sleep 1082");
            let containerd = node.containerd().expect("containerd runs");
            seen = Some((node.dir().to_owned(), [workload, containerd]));
            panic!("on purpose");
        }));
        assert!(outcome.is_err());
        let (dir, processes) = seen.expect("it got as far as its panic");
        assert!(
            processes.iter().all(|process| !process.is_alive()),
            "{processes:?}"
        );
        assert!(!dir.exists(), "{}", dir.display());
    }
}

/// Waits until something is named as left behind.
fn named(node: &Node, what: &str) {
    until(&format!("{what:?} is named"), || {
        leftovers::find(node)
            .iter()
            .any(|line| line.contains(what))
            .then_some(())
    });
}

/// Where cgroup v2 is mounted, alone or beside v1.
fn cgroup_root() -> &'static Path {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() {
        hybrid
    } else {
        Path::new("/sys/fs/cgroup")
    }
}
