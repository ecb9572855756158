//! What the kubelet asks of containers while they run.

use std::fs;

use reaper_tests::kubernetes::{Space, conditions, pod};
use serde_json::{Value, json};

crate::tests!(
    readiness_follows_a_command,
    failing_liveness_starts_a_container_again,
    http_and_tcp_probes_reach_a_pod_of_its_own_network,
    http_probe_reaches_a_pod_of_the_nodes_network,
    startup_probe_holds_back_the_others,
);

fn probe(mut how: Value) -> Value {
    how["periodSeconds"] = 1.into();
    how["failureThreshold"] = how
        .get("failureThreshold")
        .cloned()
        .unwrap_or_else(|| 1.into());
    // A busy machine is no failure.
    how["timeoutSeconds"] = 20.into();
    how
}

fn is_ready(pod: &Value) -> bool {
    conditions(pod)
        .get("Ready")
        .is_some_and(|status| status == "True")
}

fn readiness_follows_a_command(space: &Space<'_>) {
    let flag = space.folder().join("ready");
    let mut pod = pod("flagged", "exec sleep 1751");
    pod["spec"]["containers"][0]["readinessProbe"] =
        probe(json!({ "exec": { "command": ["/usr/bin/test", "-e", flag] } }));
    space.apply(&pod);
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    let seen = space.until("flagged", "runs", running);
    assert!(!is_ready(&seen), "{seen}");
    fs::write(&flag, "").expect("write the flag");
    space.ready("flagged");
    fs::remove_file(&flag).expect("remove the flag");
    let seen = space.until("flagged", "is no longer ready", |pod| !is_ready(pod));
    assert_eq!(
        seen["status"]["containerStatuses"][0]["restartCount"], 0,
        "{seen}"
    );
}

fn failing_liveness_starts_a_container_again(space: &Space<'_>) {
    let flag = space.folder().join("sick");
    // The container that is started instead is well.
    let mut pod = pod(
        "lives",
        &format!("rm -f {}; exec sleep 1752", flag.display()),
    );
    pod["spec"]["restartPolicy"] = "Always".into();
    pod["spec"]["containers"][0]["livenessProbe"] = probe(
        json!({ "exec": { "command": ["/bin/sh", "-c", format!("! test -e {}", flag.display())] } }),
    );
    space.run(&pod);
    fs::write(&flag, "").expect("write the flag");
    let seen = space.until("lives", "is started again", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1) && is_ready(pod)
    });
    let last = &seen["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert!(last["exitCode"] == 143 || last["exitCode"] == 137, "{seen}");
    let events = space
        .kubectl(&["describe", "pod", "lives"])
        .assert_success();
    assert!(events.contains("Liveness probe failed"), "{events}");
}

fn serves(name: &str) -> Value {
    pod(
        name,
        "mkdir -p /tmp/health; echo well >/tmp/health/page; exec busybox httpd -f -p 8081 -h /tmp/health",
    )
}

fn http_and_tcp_probes_reach_a_pod_of_its_own_network(space: &Space<'_>) {
    let mut pod = serves("server");
    pod["spec"]["containers"][0]["readinessProbe"] =
        probe(json!({ "httpGet": { "path": "/page", "port": 8081 } }));
    pod["spec"]["containers"][0]["livenessProbe"] = probe(json!({
        "tcpSocket": { "port": 8081 }, "failureThreshold": 60,
    }));
    let pod = space.run(&pod);
    assert_ne!(pod["status"]["podIP"], pod["status"]["hostIP"], "{pod}");
    let mut sick = serves("sick");
    sick["spec"]["containers"][0]["readinessProbe"] =
        probe(json!({ "httpGet": { "path": "/nothing", "port": 8081 } }));
    space.apply(&sick);
    reaper_tests::kubernetes::eventually("the probe's failure is told", || {
        let told = space.kubectl(&["describe", "pod", "sick"]).assert_success();
        told.contains("HTTP probe failed with statuscode: 404")
            .then_some(())
    });
}

fn http_probe_reaches_a_pod_of_the_nodes_network(space: &Space<'_>) {
    let mut pod = serves("server");
    pod["spec"]["hostNetwork"] = true.into();
    pod["spec"]["containers"][0]["readinessProbe"] =
        probe(json!({ "httpGet": { "path": "/page", "port": 8081 } }));
    let pod = space.run(&pod);
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"], "{pod}");
}

fn startup_probe_holds_back_the_others(space: &Space<'_>) {
    let flag = space.folder().join("started");
    let mut pod = pod("slow", "exec sleep 1753");
    pod["spec"]["containers"][0]["startupProbe"] = probe(json!({
        "exec": { "command": ["/usr/bin/test", "-e", flag] }, "failureThreshold": 1000,
    }));
    // It would end the container at once.
    pod["spec"]["containers"][0]["livenessProbe"] =
        probe(json!({ "exec": { "command": ["/usr/bin/test", "-e", flag] } }));
    space.apply(&pod);
    let seen = space.until("slow", "runs", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(
        seen["status"]["containerStatuses"][0]["started"], false,
        "{seen}"
    );
    fs::write(&flag, "").expect("write the flag");
    let seen = space.ready("slow");
    assert_eq!(
        seen["status"]["containerStatuses"][0]["restartCount"], 0,
        "{seen}"
    );
}
