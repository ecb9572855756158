//! Daemons, shims and monitors that go away while pods run.

use nix::sys::signal::Signal;
use reaper_tests::{
    faults::{kill, monitor_of, process_named, shim_of},
    kubernetes::{RUNC, Space, end_of, eventually, pod},
    procfs::{Process, descendants},
    suite::Suite,
};
use serde_json::{Value, json};

crate::tests!(
    pods_outlive_a_restart_of_the_kubelet,
    pods_outlive_a_restart_of_containerd,
    end_while_the_kubelet_is_away_is_seen_later,
    container_is_started_again_after_its_monitor_was_killed,
    pod_is_made_again_after_its_shim_was_killed,
    pod_is_deleted_while_containerd_is_away,
    pods_are_made_again_after_the_node_was_rebooted,
);

/// The id and the restarts of a pod's container.
fn container(pod: &Value) -> (String, i64) {
    let status = &pod["status"]["containerStatuses"][0];
    let id = status["containerID"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (id, status["restartCount"].as_i64().unwrap_or(-1))
}

/// A pod whose container is always started again.
fn lasting(name: &str, seconds: u32) -> Value {
    let mut pod = pod(name, &format!("exec sleep {seconds}"));
    pod["spec"]["restartPolicy"] = "Always".into();
    pod
}

/// Sees that a pod goes on as it was once kubelet and containerd work again: the same process, and all that
/// goes through both.
fn assert_goes_on(space: &Space<'_>, before: &Value, process: &Process) {
    let name = before["metadata"]["name"].as_str().expect("a name");
    eventually("commands run in the pod", || {
        let output = space.try_exec(name, "echo still here");
        (output.code == 0 && output.stdout == "still here\n").then_some(())
    });
    // Once another pod has run, the kubelet has looked at all of them.
    space.end(&pod("another", "true"));
    space.delete("another");
    let now = space.ready(name);
    assert_eq!(container(&now), container(before), "{now}");
    assert!(process.is_alive());
}

fn pods_outlive_a_restart_of_the_kubelet(space: &Space<'_>) {
    let before = space.run(&lasting("stays", 1791));
    let process = process_named("sleep 1791");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        space.cluster.restart_kubelet(signal, || {});
        assert_goes_on(space, &before, &process);
    }
}

fn pods_outlive_a_restart_of_containerd(space: &Space<'_>) {
    let before = space.run(&lasting("stays", 1792));
    let process = process_named("sleep 1792");
    let node = space.cluster.node();
    for kills in [false, true] {
        if kills {
            node.kill_containerd();
        } else {
            node.stop_containerd();
        }
        assert!(process.is_alive(), "it runs without containerd");
        node.start_containerd();
        assert_goes_on(space, &before, &process);
    }
}

fn end_while_the_kubelet_is_away_is_seen_later(space: &Space<'_>) {
    space.run(&pod(
        "ends",
        "trap 'exit 6' USR1; echo ready; while :; do sleep 0.1; done; : 1799",
    ));
    space.until_said("ends", "ready\n");
    let process = descendants(std::process::id())
        .into_iter()
        .find(|process| process.command_line().ends_with("; : 1799"))
        .expect("its process");
    space.cluster.restart_kubelet(Signal::SIGKILL, || {
        process.signal(Signal::SIGUSR1);
        eventually("it ends", || (!process.is_alive()).then_some(()));
    });
    assert_eq!(end_of(&space.ended("ends")).0, 6);
    space.cluster.until_ready();
}

fn container_is_started_again_after_its_monitor_was_killed(space: &Space<'_>) {
    let before = space.run(&lasting("watched", 1793));
    let process = process_named("sleep 1793");
    kill(&monitor_of(process.pid));
    let now = space.until("watched", "is started again", |pod| {
        container(pod).1 == 1 && pod["status"]["containerStatuses"][0]["ready"] == true
    });
    assert!(!process.is_alive(), "the old one has ended");
    let last = &now["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137, "{now}");
    assert_ne!(container(&now).0, container(&before).0);
    // The pod itself is the same.
    assert_eq!(now["status"]["podIP"], before["status"]["podIP"]);
}

fn pod_is_made_again_after_its_shim_was_killed(space: &Space<'_>) {
    let before = space.run(&lasting("shimmed", 1794));
    let process = process_named("sleep 1794");
    kill(&shim_of(process.pid));
    let now = space.until("shimmed", "runs again", |pod| {
        container(pod).1 >= 1 && pod["status"]["containerStatuses"][0]["ready"] == true
    });
    assert!(!process.is_alive(), "the old one has ended");
    assert_ne!(container(&now).0, container(&before).0);
    assert_eq!(space.exec("shimmed", "echo works"), "works\n");
}

fn pod_is_deleted_while_containerd_is_away(space: &Space<'_>) {
    space.run(&lasting("goes", 1795));
    let process = process_named("sleep 1795");
    let node = space.cluster.node();
    node.kill_containerd();
    space
        .kubectl(&["delete", "pod", "goes", "--wait=false"])
        .assert_success();
    space.until("goes", "is about to go", |pod| {
        pod["metadata"]["deletionTimestamp"].is_string()
    });
    assert!(process.is_alive());
    node.start_containerd();
    space.gone("goes");
    assert!(!process.is_alive());
    space.cluster.until_ready();
}

/// The upgrade of containerd that the program makes between two rounds of tests.
pub(crate) fn pods_outlive_an_upgrade_of_containerd(space: &Space<'_>, suite: Suite) {
    let before = space.run(&lasting("stays", 1796));
    let process = process_named("sleep 1796");
    let mut contained = lasting("contained", 1797);
    contained["spec"]["runtimeClassName"] = RUNC.into();
    space.run(&contained);
    space.end(&pod("ended", "echo ended; exit 5"));
    let node = space.cluster.node();
    node.upgrade_containerd(suite);
    assert_goes_on(space, &before, &process);
    space.ready("contained");
    assert_eq!(space.log("ended"), "ended\n");
    assert_eq!(end_of(&space.get("pods", "ended").expect("a pod")).0, 5);
    // The new one ends what the old one started, with its status, and starts it again.
    kill(&process);
    let now = space.until("stays", "is started again", |pod| {
        container(pod).1 == 1 && pod["status"]["containerStatuses"][0]["ready"] == true
    });
    let last = &now["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137, "{now}");
    space.delete("stays");
    space.delete_of_runc("contained");
}

fn pods_are_made_again_after_the_node_was_rebooted(space: &Space<'_>) {
    let mut with_volume = lasting("stays", 1798);
    with_volume["spec"]["volumes"] = json!([{ "name": "own", "emptyDir": {} }]);
    with_volume["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "own", "mountPath": "/srv/own" }]);
    let before = space.run(&with_volume);
    space.exec(
        "stays",
        "echo kept >/srv/own/file; echo lost >/etc/of-this-boot",
    );
    space.end(&pod("ended", "echo ended; exit 5"));
    space.cluster.reboot();
    let now = space.until("stays", "runs again", |pod| {
        container(pod).1 >= 1 && pod["status"]["containerStatuses"][0]["ready"] == true
    });
    assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"]);
    assert_ne!(container(&now).0, container(&before).0);
    assert_eq!(
        space.exec(
            "stays",
            "cat /srv/own/file; test ! -e /etc/of-this-boot && echo new"
        ),
        "kept\nnew\n"
    );
    // What had ended is not run again, and still has its log.
    let ended = space.get("pods", "ended").expect("a pod");
    assert_eq!(end_of(&ended).0, 5, "{ended}");
    assert_eq!(space.log("ended"), "ended\n");
    space.cluster.until_ready();
}
