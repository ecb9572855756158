//! Limits of memory, processors and space, and what is seen of their use.

use std::fs;

use reaper_tests::{
    cri::memory_limit,
    faults::process_named,
    kubernetes::{Space, end_of, eventually, pod},
};
use serde_json::{Value, json};

crate::tests!(
    container_over_its_memory_is_killed,
    processor_and_memory_limits_are_in_the_cgroup,
    limits_are_changed_while_a_container_runs,
    processors_are_given_to_a_container_alone,
    use_is_in_the_summary_of_the_kubelet,
    pod_over_the_size_of_its_log_is_evicted,
);

fn container_over_its_memory_is_killed(space: &Space<'_>) {
    // It keeps the line that it reads, which does not end.
    let mut pod = pod("hungry", "exec tail /dev/zero");
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "40Mi" } });
    let pod = space.end(&pod);
    let (code, reason, _) = end_of(&pod);
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"), "{pod}");
}

fn processor_and_memory_limits_are_in_the_cgroup(space: &Space<'_>) {
    let mut limited = pod("limited", "exec sleep 1771");
    limited["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "250m", "memory": "32Mi" }, "limits": { "cpu": "500m", "memory": "64Mi" } });
    let seen = space.run(&limited);
    let process = process_named("sleep 1771");
    let uid = seen["metadata"]["uid"].as_str().expect("a uid");
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).expect("its cgroups");
    assert!(
        cgroups.contains(&format!("/kubepods/burstable/pod{uid}/")),
        "{cgroups}"
    );
    let marker = space.cluster.node().marker();
    let pods = format!("{marker}/kubepods/burstable/pod{uid}");
    let of = |controller: &str, file: &str| {
        let path = cgroups
            .lines()
            .find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                names
                    .split(',')
                    .any(|name| name == controller)
                    .then_some(path)
            })
            .map_or_else(
                || format!("/sys/fs/cgroup/{pods}"),
                |path| format!("/sys/fs/cgroup/{controller}{path}"),
            );
        fs::read_to_string(format!("{path}/{file}"))
            .unwrap_or_else(|error| panic!("{path}/{file}: {error}"))
    };
    if cgroups.contains(":memory:") {
        assert_eq!(of("memory", "memory.limit_in_bytes").trim(), "67108864");
        assert_eq!(of("cpu", "cpu.cfs_quota_us").trim(), "50000");
    } else {
        assert_eq!(of("memory", "memory.max").trim(), "67108864");
        assert_eq!(of("cpu", "cpu.max").trim(), "50000 100000");
    }
}

/// What a file of a container's memory cgroup says: that of version 1, or that of version 2.
fn memory(pid: u32, old: &str, new: &str) -> String {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let path = |line: &str| {
        line.splitn(3, ':')
            .nth(2)
            .expect("a path")
            .trim_end()
            .to_owned()
    };
    let of_memory = cgroups.lines().find(|line| line.contains(":memory:"));
    let file = match of_memory {
        Some(line) => format!("/sys/fs/cgroup/memory{}/{old}", path(line)),
        None => format!("/sys/fs/cgroup{}/{new}", path(&cgroups)),
    };
    fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .trim()
        .to_owned()
}

fn limits_are_changed_while_a_container_runs(space: &Space<'_>) {
    let mut limited = pod("limited", "exec sleep 1772");
    limited["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "64Mi" } });
    let seen = space.run(&limited);
    let process = process_named("sleep 1772");
    let limit = || memory(process.pid, "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit(), "67108864");
    let id = seen["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .and_then(|id| id.strip_prefix("containerd://"))
        .expect("the container's id");
    // A kubelet of this version never does so for memory: it is asked as a newer one would.
    let cri = space.cluster.node().cri();
    cri.update(id, memory_limit(32 << 20));
    assert_eq!(limit(), "33554432");
    assert_eq!(space.exec("limited", "echo goes on"), "goes on\n");
    assert!(process.is_alive());
}

/// The processors that a process may use.
fn processors(space: &Space<'_>, pod: &str) -> String {
    let script = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
    space.exec(pod, script).trim().to_owned()
}

fn processors_are_given_to_a_container_alone(space: &Space<'_>) {
    let all = fs::read_to_string("/sys/devices/system/cpu/online").expect("the processors");
    space.cluster.manage_processors("static");
    space.cluster.until_ready();
    space.run(&pod("shares", "exec sleep 1773"));
    let mut alone = pod("alone", "exec sleep 1773");
    alone["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "cpu": "1", "memory": "64Mi" } });
    space.run(&alone);
    let own = eventually("it has a processor", || {
        let own = processors(space, "alone");
        own.parse::<u32>().is_ok().then_some(own)
    });
    // What runs already must leave it, too: that is by an update, which the kubelet does again and again.
    eventually("others leave it", || {
        let shared = processors(space, "shares");
        (!shared.is_empty()
            && shared != all.trim()
            && !shared.split([',', '-']).any(|one| one == own))
        .then_some(())
    });
    space.delete("alone");
    eventually("others have it back", || {
        (processors(space, "shares") == all.trim()).then_some(())
    });
    space.delete("shares");
    space.cluster.manage_processors("none");
    space.cluster.until_ready();
}

fn use_is_in_the_summary_of_the_kubelet(space: &Space<'_>) {
    // The memory is that of the shell, which keeps the word.
    let script = "word=$$(head -c 20000000 /dev/zero | tr '\\0' x); while :; do sleep 0.1; done";
    space.run(&pod("uses", script));
    let path = "/api/v1/nodes/reaper-node/proxy/stats/summary";
    eventually("the use of the pod is known", || {
        let summary = space.cluster.get(path)?;
        let pods = summary["pods"].as_array()?;
        let ours = pods
            .iter()
            .find(|pod| pod["podRef"]["namespace"] == space.name.as_str())?;
        let container = &ours["containers"][0];
        let at_least = |value: &Value, least: u64| value.as_u64().is_some_and(|used| used >= least);
        let known = container["name"] == "main"
            && at_least(&container["memory"]["workingSetBytes"], 20_000_000)
            && at_least(&container["cpu"]["usageCoreNanoSeconds"], 1);
        known.then_some(())
    });
}

fn pod_over_the_size_of_its_log_is_evicted(space: &Space<'_>) {
    let mut talks = pod(
        "talks",
        "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000; exec sleep 1774",
    );
    talks["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "ephemeral-storage": "1Mi" } });
    space.apply(&talks);
    let evicted = space.ended("talks");
    assert_eq!(evicted["status"]["reason"], "Evicted", "{evicted}");
}
