//! Shims and monitors that are killed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use nix::sys::signal::Signal;
use reaper_tests::{
    Node,
    api::Streams,
    containerd::is_yardstick,
    cri::{container, messages::ContainerState},
    faults::{Held, kill, monitor_of, process_named, shim_of},
    on_each,
    procfs::Process,
    runtime::until,
    spec::Workload,
};

/// A container whose init has a daemon and a set-uid process beside it.
struct Family {
    id: String,
    init: Process,
    all: Vec<Process>,
}

impl Family {
    fn run(node: &Node, name: &str) -> Self {
        // Not below the node's folder: /run may be mounted so that set-uid has no effect.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(dir).expect("make cargo's folder for tests");
        let suid = dir.join(node.name("suid-sleep"));
        fs::copy("/bin/sleep", &suid).expect("copy sleep");
        chown(&suid, Some(65534), None).expect("give it to nobody");
        fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).expect("make it set-uid");
        let suid = suid.to_str().expect("a path in UTF-8");
        let script = format!("{suid} 1031 & (setsid sleep 1032 &) ; exec sleep 1033");
        let id = node.run(name, &Workload::shell(&script), &Streams::default());
        let init = process_named("sleep 1033");
        let all = vec![
            process_named(&format!("{suid} 1031")),
            process_named("sleep 1032"),
            init.clone(),
        ];
        fs::remove_file(suid).expect("remove the copy of sleep");
        Self { id, init, all }
    }

    /// The process that containerd asks for it: containerd's own shim is the parent of init, Reaper's that of
    /// its monitor.
    fn shim(&self) -> Process {
        match is_yardstick() {
            true => monitor_of(self.init.pid),
            false => shim_of(self.init.pid),
        }
    }

    fn assert_ended(&self) {
        until("all that it started has ended", || {
            self.all
                .iter()
                .all(|process| !process.is_alive())
                .then_some(())
        });
    }
}

#[test]
fn killed_monitor_gives_exit_137_and_ends_all_processes() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let events = node.events();
        let family = Family::run(node, "orphaned");
        let waiting = node.api().wait(&family.id, "");
        kill(&monitor_of(family.init.pid));
        assert_eq!(waiting.finish().expect("wait").code, 137);
        family.assert_ended();
        let state = node.api().state(&family.id, "").expect("state");
        assert_eq!(
            (state.status().as_str_name(), state.exit_status),
            ("STOPPED", 137)
        );
        assert_eq!(node.delete(&family.id).code, 137);
        let topics = events.topics_of(&family.id);
        assert_eq!(
            topics,
            [
                "/tasks/create",
                "/tasks/start",
                "/tasks/exit",
                "/tasks/delete"
            ]
        );
    });
}

#[test]
fn start_fails_after_monitor_is_killed() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let id = node.create("gated", &Workload::new(&["/bin/true"]), &Streams::default());
        let pid = node.api().state(&id, "").expect("state").pid;
        kill(&monitor_of(pid));
        node.api()
            .start(&id, "")
            .expect_err("start without a monitor");
        assert_eq!(node.api().wait(&id, "").finish().expect("wait").code, 137);
        assert_eq!(node.delete(&id).code, 137);
    });
}

#[test]
fn containerd_reports_exit_and_cleans_up_after_shim_death() {
    on_each(|node| {
        let events = node.events();
        let family = Family::run(node, "shimless");
        let shim = family.shim();
        kill(&shim);
        assert_eq!(events.exit_code(&family.id), Some(137));
        family.assert_ended();
        node.gone(&family.id);
    });
}

#[test]
fn unreported_exit_is_reported_after_shim_death() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let events = node.events();
        let id = node.run(
            "untold",
            &Workload::new(&["/bin/sleep", "1034"]),
            &Streams::default(),
        );
        let init = process_named("/bin/sleep 1034");
        let shim = Held::hold(&shim_of(init.pid));
        init.signal(Signal::SIGUSR1);
        let record = node
            .state_root()
            .join("ns")
            .join(node.marker())
            .join(&id)
            .join("exit.json");
        until("its end is on record", || record.exists().then_some(()));
        shim.kill();
        assert_eq!(events.exit_code(&id), Some(128 + 10));
        node.gone(&id);
    });
}

#[test]
fn death_of_monitor_and_shim_leaves_nothing() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let events = node.events();
        let family = Family::run(node, "alone");
        let (monitor, shim) = (monitor_of(family.init.pid), shim_of(family.init.pid));
        let held = Held::hold(&shim);
        kill(&monitor);
        held.kill();
        assert_eq!(events.exit_code(&family.id), Some(137));
        family.assert_ended();
        node.gone(&family.id);
    });
}

#[test]
fn a_shim_killed_while_containerd_is_away_is_cleaned_up_at_its_return() {
    on_each(|node| {
        let family = Family::run(node, "unseen");
        let shim = family.shim();
        node.stop_containerd();
        kill(&shim);
        node.start_containerd();
        family.assert_ended();
        node.gone(&family.id);
    });
}

#[test]
fn the_cri_sees_the_end_and_can_remove_the_pod() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node.run_pod("struck");
        let cri = node.cri();
        let struck = pod.start(&container("struck", &["/bin/sleep", "1035"]));
        let spared = pod.start(&container("spared", &["/bin/sleep", "1036"]));
        kill(&monitor_of(process_named("/bin/sleep 1035").pid));
        let status = cri.exited(&struck);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        let state = cri.status(&spared).expect("ask for the status").state();
        assert_eq!(
            state,
            ContainerState::ContainerRunning,
            "its neighbour runs on"
        );

        kill(&shim_of(process_named("/bin/sleep 1036").pid));
        // The CRI had asked the dead shim how it would end, and calls a lost answer 255.
        let code = cri.exited(&spared).exit_code;
        assert!(matches!(code, 137 | 255), "{code}");
        pod.stop();
        pod.remove();
    });
}
