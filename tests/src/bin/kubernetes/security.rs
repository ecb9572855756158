//! `securityContext`, and resources.

use std::fs;

use reaper_tests::kubernetes::{Space, end_of, pod};
use serde_json::json;

crate::tests!(
    user_and_groups_are_the_pods,
    root_filesystem_can_be_read_only,
    capabilities_are_dropped_and_added,
    privileged_container_has_all_rights,
    no_more_privileges_can_be_had,
    system_calls_are_filtered,
    sysctls_of_the_network_are_the_pods,
    user_root_is_refused_where_the_pod_says_so,
    container_over_its_memory_is_killed,
    processor_and_memory_limits_are_in_the_cgroup,
);

fn user_and_groups_are_the_pods(space: &Space<'_>) {
    let mut pod = pod(
        "user",
        "id -u; id -g; id -G; stat -c %g /srv/own; touch /srv/own/file && stat -c '%u %g' /srv/own/file",
    );
    pod["spec"]["securityContext"] = json!({
        "runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456, "supplementalGroups": [4567], "runAsNonRoot": true,
    });
    pod["spec"]["volumes"] = json!([{ "name": "own", "emptyDir": {} }]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "own", "mountPath": "/srv/own" }]);
    space.end(&pod);
    assert_eq!(
        space.log("user"),
        "1234\n2345\n2345 3456 4567\n3456\n1234 3456\n"
    );
}

fn root_filesystem_can_be_read_only(space: &Space<'_>) {
    let mut pod = pod(
        "frozen",
        "exec 2>&1; touch /etc/x; touch /srv/x; touch /srv/own/x && echo written",
    );
    pod["spec"]["containers"][0]["securityContext"] = json!({ "readOnlyRootFilesystem": true });
    pod["spec"]["volumes"] = json!([{ "name": "own", "emptyDir": {} }]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "own", "mountPath": "/srv/own" }]);
    space.end(&pod);
    let log = space.log("frozen");
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    assert!(log.ends_with("written\n"), "{log}");
}

/// What a pod's process has of each set of capabilities.
const SETS: &str = "grep -E '^Cap(Eff|Bnd)|^NoNewPrivs' /proc/self/status | tr -d '\\t'";

fn capabilities_are_dropped_and_added(space: &Space<'_>) {
    let mut none = pod("none", SETS);
    none["spec"]["containers"][0]["securityContext"] =
        json!({ "capabilities": { "drop": ["ALL"] } });
    space.end(&none);
    assert_eq!(
        space.log("none"),
        "CapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:0\n"
    );
    let mut one = pod("one", SETS);
    one["spec"]["containers"][0]["securityContext"] =
        json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } });
    space.end(&one);
    assert_eq!(
        space.log("one"),
        "CapEff:0000000000000400\nCapBnd:0000000000000400\nNoNewPrivs:0\n"
    );
}

fn privileged_container_has_all_rights(space: &Space<'_>) {
    let own = fs::read_to_string("/proc/self/status").expect("read this process's status");
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .expect("its capabilities");
    let mut pod = pod(
        "mighty",
        &format!("{SETS}; mount -t tmpfs tmpfs /mnt && umount /mnt && echo mounted"),
    );
    pod["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    let pod = space.end(&pod);
    assert_eq!(end_of(&pod).0, 0, "{pod}");
    let log = space.log("mighty");
    assert!(
        log.contains(&format!("CapEff:{own}\n")) && log.ends_with("mounted\n"),
        "{log}"
    );
}

fn no_more_privileges_can_be_had(space: &Space<'_>) {
    let mut pod = pod("meek", SETS);
    pod["spec"]["containers"][0]["securityContext"] = json!({ "allowPrivilegeEscalation": false });
    space.end(&pod);
    assert!(
        space.log("meek").ends_with("NoNewPrivs:1\n"),
        "{}",
        space.log("meek")
    );
}

fn system_calls_are_filtered(space: &Space<'_>) {
    let script = "grep -E '^Seccomp:' /proc/self/status | tr -d '\\t'";
    space.end(&pod("free", script));
    assert_eq!(space.log("free"), "Seccomp:0\n");
    let mut filtered = pod("filtered", script);
    filtered["spec"]["securityContext"] = json!({ "seccompProfile": { "type": "RuntimeDefault" } });
    space.end(&filtered);
    assert_eq!(space.log("filtered"), "Seccomp:2\n");
}

fn sysctls_of_the_network_are_the_pods(space: &Space<'_>) {
    let script = "tr '\\t' ' ' </proc/sys/net/ipv4/ip_local_port_range";
    let mut tuned = pod("tuned", script);
    tuned["spec"]["securityContext"] =
        json!({ "sysctls": [{ "name": "net.ipv4.ip_local_port_range", "value": "20000 20010" }] });
    space.end(&tuned);
    assert_eq!(space.log("tuned"), "20000 20010\n");
    space.end(&pod("other", script));
    assert_ne!(space.log("other"), "20000 20010\n");
}

fn user_root_is_refused_where_the_pod_says_so(space: &Space<'_>) {
    let mut pod = pod("root", "true");
    pod["spec"]["securityContext"] = json!({ "runAsNonRoot": true });
    space.apply(&pod);
    let seen = space.until("root", "is refused", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
            == "CreateContainerConfigError"
    });
    assert!(seen.to_string().contains("runAsNonRoot"), "{seen}");
}

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
    let process = reaper_tests::faults::process_named("sleep 1771");
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
