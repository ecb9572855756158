//! `securityContext`.

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
    system_calls_are_filtered_by_a_profile_of_the_node,
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

fn system_calls_are_filtered_by_a_profile_of_the_node(space: &Space<'_>) {
    let folder = std::path::Path::new("/mnt/kubelet/seccomp");
    fs::create_dir_all(folder).expect("make the folder of profiles");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122 }],
    });
    fs::write(folder.join("no-mkdir.json"), profile.to_string()).expect("write a profile");
    let mut pod = pod(
        "filtered",
        "mkdir /tmp/new 2>&1; touch /tmp/file && echo made",
    );
    pod["spec"]["securityContext"] = json!({
        "seccompProfile": { "type": "Localhost", "localhostProfile": "no-mkdir.json" },
    });
    space.end(&pod);
    let log = space.log("filtered");
    assert!(
        log.contains("Disk quota exceeded") && log.ends_with("made\n"),
        "{log}"
    );
}
