//! Containers of pods, by the names that Kubernetes knows.

use std::{
    fs,
    io::Write,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::rig::{Rig, first_line, shell};

const K8S: [&str; 2] = ["--namespace", "k8s.io"];

/// Makes a container of a pod, as containerd does.
fn of_pod(rig: &Rig, options: &[&str], id: &str, container: &str) {
    let annotations = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": "s",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.container-name": container,
    });
    let fields = json!({ "annotations": annotations });
    let bundle = rig.bundle_with(id, &shell("exec sleep 1000"), &fields);
    rig.quietly(&[options, &["create", "--bundle", &bundle, id]].concat());
}

/// The same, and starts it.
fn running(rig: &Rig, id: &str, container: &str) {
    of_pod(rig, &K8S, id, container);
    rig.quietly(&[&K8S[..], &["start", id]].concat());
}

/// Makes the sandbox of the pod, whose logs are below `logs`.
fn sandbox(rig: &Rig, logs: &str) {
    let annotations = json!({
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": "s",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.sandbox-log-directory": logs,
    });
    let fields = json!({ "annotations": annotations });
    let bundle = rig.bundle_with("s", &shell("exec sleep 1000"), &fields);
    rig.quietly(&[&K8S[..], &["create", "--bundle", &bundle, "s"]].concat());
}

/// Removes these and what is left of containerd's namespaces.
fn remove(rig: &Rig, ids: &[&str]) {
    for id in ids {
        rig.ok(&[&K8S[..], &["delete", "--force", id]].concat());
    }
    fs::remove_dir_all(rig.root().join("ns")).unwrap();
}

fn id_of(rig: &Rig, name: &str) -> String {
    let state: Value = serde_json::from_str(&rig.ok(&["state", name])).unwrap();
    state["id"].as_str().unwrap().to_owned()
}

#[test]
fn containers_of_pods_are_listed_with_the_names_that_kubernetes_knows() {
    let rig = Rig::with_overlay();
    rig.running("plain");
    assert!(!rig.ok(&["list"]).contains("POD"));
    assert!(!rig.ok(&["ps", "plain"]).contains("POD"));
    of_pod(&rig, &[], "c", "nginx");
    let list = rig.ok(&["list"]);
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let line = list.lines().find(|line| line.starts_with("c ")).unwrap();
    assert_eq!(words(line)[7..], ["shop/web-0", "nginx"], "{list}");
    let line = list
        .lines()
        .find(|line| line.starts_with("plain "))
        .unwrap();
    assert_eq!(words(line)[7..], ["-", "-"], "{list}");
    let json: Value = serde_json::from_str(&rig.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(
        (&json[0]["pod"], &json[0]["container"], json[1].get("pod")),
        (&"shop/web-0".into(), &"nginx".into(), None)
    );
    let ps = rig.ok(&["ps", "c"]);
    assert_eq!(
        words(ps.lines().next().unwrap())[4..6],
        ["POD", "CONTAINER"]
    );
    assert_eq!(
        words(ps.lines().nth(1).unwrap())[4..6],
        ["shop/web-0", "nginx"]
    );
    // Containers of containerd's namespaces share the overlays.
    let bundle = rig.path("c").to_str().unwrap().to_owned();
    rig.quietly(&["--namespace", "k8s.io", "create", "--bundle", &bundle, "d"]);
    let scopes = rig.ok(&["overlay", "ls"]);
    assert_eq!(scopes.matches(" (shop/web-0/nginx)").count(), 2, "{scopes}");
    let scopes: Value = serde_json::from_str(&rig.ok(&["overlay", "ls", "--json"])).unwrap();
    let pods = scopes[0]["pods"].as_object().unwrap();
    let names: Vec<_> = pods.keys().map(|name| &name[..1]).collect();
    assert_eq!(names, ["c", "d"], "{scopes}");
    assert!(
        pods.values().all(|pod| pod["pod"] == "shop/web-0"),
        "{scopes}"
    );
    let used = rig.ok(&["overlay", "du"]);
    assert_eq!(used.matches("shop/web-0/nginx").count(), 2, "{used}");
    let used: Value = serde_json::from_str(&rig.ok(&["overlay", "du", "--json"])).unwrap();
    assert_eq!(used[0]["pods"], scopes[0]["pods"]);
    rig.ok(&["--namespace", "k8s.io", "delete", "--force", "d"]);
    fs::remove_dir_all(rig.root().join("ns")).unwrap();
}

#[test]
fn a_pods_name_finds_its_container_wherever_containerd_keeps_it() {
    let rig = Rig::new();
    sandbox(&rig, "/nowhere");
    running(&rig, "one", "nginx");
    assert_eq!(
        id_of(&rig, "shop/web-0"),
        "one",
        "the sandbox has no process"
    );
    assert_eq!(id_of(&rig, "shop/web-0/nginx"), "one");
    assert_eq!(id_of(&rig, "k8s.io/one"), "one", "as doctor prints it");
    assert_eq!(rig.ok(&["exec", "shop/web-0", "echo", "in"]), "in\n");
    rig.ok(&["pause", "shop/web-0"]);
    rig.ok(&["resume", "shop/web-0"]);
    rig.ok(&["update", "--pids-limit", "100", "shop/web-0"]);
    assert!(rig.ok(&["ps", "shop/web-0"]).contains("sleep 1000"));
    assert!(
        rig.ok(&["events", "--stats", "shop/web-0"])
            .contains("\"id\":\"one\"")
    );
    let stats = rig.ok(&[
        "stats",
        "--no-stream",
        "--interval",
        "1ms",
        "shop/web-0/nginx",
    ]);
    assert!(stats.contains("one"), "{stats}");
    let error = rig.fails(1, &["logs", "shop/web-0"]);
    assert!(error.contains("kubectl logs"), "{error}");

    let error = rig.fails(1, &["state", "shop/web-0/ngnix"]);
    assert!(error.contains("did you mean shop/web-0/nginx?"), "{error}");
    let error = rig.fails(1, &["kill", "other/pod"]);
    assert!(error.contains("--namespace k8s.io list"), "{error}");
    // In another namespace of containerd it is not looked for, and the caller's own is not one by that name.
    rig.fails(1, &["--namespace", "moby", "state", "shop/web-0"]);
    rig.fails(1, &["state", "one"]);

    rig.ok(&["kill", "shop/web-0", "KILL"]);
    assert_eq!(rig.ok(&["wait", "shop/web-0/nginx"]), "137\n");
    rig.ok(&["delete", "shop/web-0"]);
    rig.ok(&["delete", "--force", "shop/web-0"]);
    rig.fails(1, &["delete", "shop/web-0"]);
    remove(&rig, &["s"]);
}

#[test]
fn a_name_of_several_containers_lists_them_and_does_nothing() {
    let rig = Rig::new();
    running(&rig, "one", "nginx");
    running(&rig, "two", "sidecar");
    for command in [
        &["kill", "shop/web-0"][..],
        &["delete", "--force", "shop/web-0"],
    ] {
        let error = rig.fails(1, command);
        for candidate in ["shop/web-0/nginx (one)", "shop/web-0/sidecar (two)"] {
            assert!(error.contains(candidate), "{error}");
        }
    }
    rig.fails(255, &["exec", "shop/web-0", "true"]);
    for id in ["one", "two"] {
        let state = rig.ok(&[&K8S[..], &["state", id]].concat());
        assert!(state.contains("running"), "{state}");
    }
    // Of a container that was restarted, the one that runs is meant.
    rig.ok(&["kill", "shop/web-0/nginx", "KILL"]);
    rig.ok(&["wait", "shop/web-0/nginx"]);
    running(&rig, "three", "nginx");
    assert_eq!(id_of(&rig, "shop/web-0/nginx"), "three");
    running(&rig, "four", "nginx");
    let error = rig.fails(1, &["state", "shop/web-0/nginx"]);
    let named = ["(one)", "(three)", "(four)"].map(|id| error.contains(id));
    assert_eq!(named, [true; 3], "{error}");
    // Containers of two state roots cannot be measured by one call.
    rig.running("own");
    let error = rig.fails(1, &["stats", "--no-stream", "shop/web-0/sidecar", "own"]);
    assert!(error.contains("own"), "{error}");
    remove(&rig, &["one", "two", "three", "four"]);
}

/// Follows the log of the only container of the pod.
fn follower(rig: &Rig) -> Child {
    rig.command(&["logs", "--follow", "shop/web-0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn logs_of_a_pod_are_read_from_where_containerd_writes_them() {
    let rig = Rig::new();
    let logs = rig.path("pods/shop_web-0_uid");
    let folder = logs.join("nginx");
    fs::create_dir_all(&folder).unwrap();
    sandbox(&rig, logs.to_str().unwrap());
    running(&rig, "one", "nginx");
    // Of attempts, in the order of numbers.
    fs::write(folder.join("9.log"), "T stdout F old\n").unwrap();
    let log = folder.join("10.log");
    fs::write(
        &log,
        "T stdout F first\nT stderr P two \nT stderr F parts\n",
    )
    .unwrap();
    assert_eq!(rig.ok(&["logs", "shop/web-0"]), "first\ntwo parts\n");
    assert_eq!(rig.ok(&["logs", "--tail", "1", "k8s.io/one"]), "parts\n");

    let mut followed = follower(&rig);
    assert_eq!(first_line(&mut followed), "first");
    // What the kubelet does with a full log.
    fs::rename(&log, folder.join("10.log.20260101-000000")).unwrap();
    fs::write(&log, "T stdout F third\n").unwrap();
    rig.ok(&["kill", "shop/web-0", "KILL"]);
    rig.ok(&["wait", "shop/web-0"]);
    // containerd writes what was in the pipe, and has the container deleted then.
    let mut file = fs::File::options().append(true).open(&log).unwrap();
    file.write_all(b"T stdout F last\n").unwrap();
    rig.ok(&["delete", "shop/web-0"]);
    let output = followed.wait_with_output().unwrap();
    assert!(output.status.success());
    let rest = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rest, "two parts\nthird\nlast\n");
    remove(&rig, &["s"]);
}
