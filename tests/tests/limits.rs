//! Limits of `ctr` and of the kubelet's containers.

use reaper_tests::{
    containerd::is_yardstick,
    cri::{
        container, memory_limit,
        messages::{LinuxContainerResources, UInt64Value},
    },
    on_each,
    runtime::until,
};

/// Eats 200 MB: without a newline tail keeps all of it.
const EATER: &str = "head -c 200000000 /dev/zero | tail > /dev/null; exit $?";

#[test]
fn a_memory_limit_of_ctr_kills_what_eats_more_and_says_so_before_the_exit() {
    on_each(|node| {
        let events = node.events();
        let options = ["--rm", "--memory-limit", "52428800"];
        let output = node.ctr_run_with("eater", &options, &["/bin/sh", "-c", EATER]);
        assert_eq!(output.code, 137, "{output:?}");
        let topics = events.topics_of(&node.name("eater"));
        let life = [
            "/tasks/create",
            "/tasks/start",
            "/tasks/oom",
            "/tasks/exit",
            "/tasks/delete",
        ];
        assert_eq!(topics, life);
        // The same end by another hand.
        let output = node.ctr_run_with("killed", &options, &["/bin/sh", "-c", "kill -9 $$"]);
        assert_eq!(output.code, 137, "{output:?}");
        let topics = events.topics_of(&node.name("killed"));
        assert_eq!(
            topics.iter().filter(|topic| *topic == "/tasks/oom").count(),
            0
        );
    });
}

#[test]
fn limits_of_a_pods_container_hold() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node.run_pod("limited");
        let mut config = container("eater", &["/bin/sh", "-c", EATER]);
        let linux = config.linux.as_mut().expect("of a Linux container");
        linux.resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 50 << 20,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            cpu_shares: 512,
            ..LinuxContainerResources::default()
        });
        let id = pod.start(&config);
        let plain = pod.start(&container("killed", &["/bin/sh", "-c", "kill -9 $$"]));
        let status = node.cri().exited(&id);
        assert_eq!(
            (status.exit_code, status.reason.as_str()),
            (137, "OOMKilled")
        );
        let status = node.cri().exited(&plain);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        pod.stop();
        pod.remove();
    });
}

#[test]
fn figures_of_a_pods_container_are_those_of_its_cgroup() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node.run_pod("figures");
        // Without a newline tail keeps all of it; the child of the shell has exited by then.
        let script = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; \
            (head -c 30000000 /dev/zero; echo ready >&2; exec sleep 1000) | tail > /dev/null";
        let mut config = container("holder", &["/bin/sh", "-c", script]);
        let linux = config.linux.as_mut().expect("of a Linux container");
        linux.resources = Some(memory_limit(256 << 20));
        let id = pod.start(&config);
        until("it holds its memory", || {
            (pod.log("holder") == ["stderr F ready"]).then_some(())
        });
        let value = |value: &Option<UInt64Value>| value.as_ref().map_or(0, |value| value.value);
        until("tail has read all", || {
            let stats = node.cri().stats(&id).expect("ask for figures")?;
            let memory = stats.memory?;
            let (usage, set) = (value(&memory.usage_bytes), value(&memory.working_set_bytes));
            assert!(set <= 256 << 20 && value(&stats.cpu?.usage_core_nano_seconds) > 0);
            (usage.max(set) > 25_000_000 && set > 25_000_000).then_some(())
        });
        // The pod's own are those of the cgroup that its containers are in.
        for stats in [pod.stats(), pod.listed_stats()] {
            let memory = stats.and_then(|linux| linux.memory).expect("memory");
            assert!(value(&memory.working_set_bytes) > 25_000_000, "{memory:?}");
        }
        node.cri().stop(&id, 0).expect("kill it");
        pod.stop();
        pod.remove();
    });
}

#[test]
fn a_running_container_of_a_pod_gets_other_limits() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node.run_pod("resized");
        // It eats what it may not, once it is told to, and says how that went.
        let script = "while ! test -e /tmp/go-$1; do sleep 0.1; done; \
            head -c 100000000 /dev/zero | tail > /dev/null; exit $?";
        let marker = node.name("resized");
        let mut config = container("eater", &["/bin/sh", "-c", script, "sh", &marker]);
        let linux = config.linux.as_mut().expect("of a Linux container");
        linux.resources = Some(memory_limit(50 << 20));
        let id = pod.start(&config);
        node.cri().update(&id, memory_limit(400 << 20));
        let go = ["/bin/sh", "-c", &format!("touch /tmp/go-{marker}")];
        let told = node.cri().exec_sync(&id, &go, 0).expect("tell it");
        assert_eq!(told.exit_code, 0);
        assert_eq!(node.cri().exited(&id).exit_code, 0);
        pod.stop();
        pod.remove();
    });
}
