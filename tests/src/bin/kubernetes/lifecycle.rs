//! How containers start, end and are started again.

use std::time::{Duration, Instant};

use reaper_tests::kubernetes::{Space, container, end_of, eventually, pod};
use serde_json::{Value, json};

crate::tests!(
    pod_completes_or_fails_with_its_exit_code,
    command_not_found_is_described,
    annotation_that_is_not_allowed_is_described,
    deleted_pod_stops_gracefully_or_is_killed_at_the_deadline,
    containers_are_started_again_with_back_off,
    init_containers_run_one_after_another,
    failing_init_container_fails_the_pod,
    containers_of_a_pod_share_its_network_and_volumes,
    processes_of_a_pod_can_be_shared,
    hooks_run_after_the_start_and_before_the_stop,
    termination_message_is_taken_from_file_or_log,
    environment_and_working_directory_are_the_pods,
    pods_share_what_they_write_or_have_their_own,
    processes_of_others_are_seen_as_the_class_says,
    pods_of_the_node_see_its_network_and_processes,
);

fn pod_completes_or_fails_with_its_exit_code(space: &Space<'_>) {
    let good = space.end(&pod("good", "echo hello"));
    assert_eq!(good["status"]["phase"], "Succeeded", "{good}");
    assert_eq!(end_of(&good), (0, "Completed".into(), String::new()));
    assert_eq!(space.log("good"), "hello\n");
    let bad = space.end(&pod("bad", "exit 7"));
    assert_eq!(bad["status"]["phase"], "Failed", "{bad}");
    assert_eq!(end_of(&bad), (7, "Error".into(), String::new()));
    // Kubernetes takes two for one.
    let killed = space.end(&pod("killed", "kill -9 $$$$"));
    assert_eq!(end_of(&killed), (137, "Error".into(), String::new()));
}

fn command_not_found_is_described(space: &Space<'_>) {
    let mut lost = pod("lost", "");
    lost["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    let lost = space.end(&lost);
    let (code, reason, message) = end_of(&lost);
    assert_eq!((code, reason.as_str()), (128, "StartError"), "{lost}");
    assert!(message.contains("/no/such/program"), "{message}");
    let told = space.kubectl(&["describe", "pod", "lost"]).assert_success();
    assert!(told.contains("No such file or directory"), "{told}");
}

fn annotation_that_is_not_allowed_is_described(space: &Space<'_>) {
    let mut pod = pod("asks", "true");
    pod["metadata"]["annotations"] = json!({ "reaper.runtime/image": "beneath" });
    space.apply(&pod);
    eventually("the refusal is told", || {
        let told = space.kubectl(&["describe", "pod", "asks"]).assert_success();
        told.contains("the annotation reaper.runtime/image is not allowed on this node")
            .then_some(())
    });
}

fn deleted_pod_stops_gracefully_or_is_killed_at_the_deadline(space: &Space<'_>) {
    let folder = space.folder();
    let last = folder.join("last");
    let mut polite = pod(
        "polite",
        &format!(
            "trap 'echo bye >{}; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
            last.display()
        ),
    );
    polite["spec"]["terminationGracePeriodSeconds"] = 200.into();
    space.run(&polite);
    space.until_said("polite", "ready\n");
    let start = Instant::now();
    space.delete("polite");
    assert!(
        start.elapsed() < Duration::from_secs(150),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        std::fs::read_to_string(last).expect("its last words"),
        "bye\n"
    );

    let mut stubborn = pod(
        "stubborn",
        "trap '' TERM; echo ready; while :; do sleep 0.1; done",
    );
    stubborn["spec"]["terminationGracePeriodSeconds"] = 5.into();
    space.run(&stubborn);
    space.until_said("stubborn", "ready\n");
    let start = Instant::now();
    space.delete("stubborn");
    assert!(
        start.elapsed() >= Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

fn containers_are_started_again_with_back_off(space: &Space<'_>) {
    let mut again = pod("again", "echo started; exit 3");
    again["spec"]["restartPolicy"] = "Always".into();
    space.apply(&again);
    let waiting = space.until("again", "waits to be started again", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && status["restartCount"].as_i64() >= Some(2)
    });
    let last = &waiting["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 3, "{waiting}");
    assert_eq!(
        space
            .kubectl(&["logs", "again", "--previous"])
            .assert_success(),
        "started\n"
    );
    space.delete("again");

    // On a failure alone: the file lets the second start succeed.
    let flag = space.folder().join("failed");
    let script = format!("test -e {0} && exit 0; touch {0}; exit 4", flag.display());
    let mut once = pod("once", &script);
    once["spec"]["restartPolicy"] = "OnFailure".into();
    let once = space.end(&once);
    assert_eq!(once["status"]["phase"], "Succeeded", "{once}");
    assert_eq!(
        once["status"]["containerStatuses"][0]["restartCount"], 1,
        "{once}"
    );
}

/// A pod with a volume that all its containers have.
fn with_shared_folder(mut pod: Value) -> Value {
    pod["spec"]["volumes"] = json!([{ "name": "shared", "emptyDir": {} }]);
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array_mut().into_iter().flatten() {
            container["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/mnt/shared" }]);
        }
    }
    pod
}

fn init_containers_run_one_after_another(space: &Space<'_>) {
    let mut pod = pod("steps", "cat /mnt/shared/steps");
    pod["spec"]["initContainers"] = json!([
        container("first", "sleep 1; echo first >>/mnt/shared/steps"),
        container("second", "echo second >>/mnt/shared/steps"),
    ]);
    space.end(&with_shared_folder(pod));
    assert_eq!(
        space
            .kubectl(&["logs", "steps", "-c", "main"])
            .assert_success(),
        "first\nsecond\n"
    );
}

fn failing_init_container_fails_the_pod(space: &Space<'_>) {
    let mut pod = pod("unprepared", "echo never");
    pod["spec"]["initContainers"] = json!([container("fails", "echo no luck; exit 9")]);
    let pod = space.end(&pod);
    assert_eq!(pod["status"]["phase"], "Failed", "{pod}");
    let init = &pod["status"]["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!(init["exitCode"], 9, "{pod}");
    assert_eq!(
        space
            .kubectl(&["logs", "unprepared", "-c", "fails"])
            .assert_success(),
        "no luck\n"
    );
    assert!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"].is_object(),
        "{pod}"
    );
}

fn containers_of_a_pod_share_its_network_and_volumes(space: &Space<'_>) {
    let client = "until busybox wget -q -O /mnt/shared/got http://127.0.0.1:8080/page 2>/dev/null; do sleep 0.2; done; \
                  cat /mnt/shared/got";
    let mut pod = pod("pair", client);
    let server = "echo served >/mnt/shared/page; busybox httpd -p 8080 -h /mnt/shared; \
                  until test -s /mnt/shared/got; do sleep 0.2; done";
    let containers = pod["spec"]["containers"]
        .as_array_mut()
        .expect("containers");
    containers.push(container("server", server));
    space.end(&with_shared_folder(pod));
    assert_eq!(
        space
            .kubectl(&["logs", "pair", "-c", "main"])
            .assert_success(),
        "served\n"
    );
}

fn processes_of_a_pod_can_be_shared(space: &Space<'_>) {
    let mut pod = pod(
        "together",
        "until pgrep -xf 'sleep 17[3]1'; do sleep 0.2; done; pkill -xf 'sleep 17[3]1'",
    );
    pod["spec"]["shareProcessNamespace"] = true.into();
    let containers = pod["spec"]["containers"]
        .as_array_mut()
        .expect("containers");
    containers.push(container("other", "sleep 1731; exit 0"));
    let pod = space.end(&pod);
    assert_eq!(pod["status"]["phase"], "Succeeded", "{pod}");
}

fn hooks_run_after_the_start_and_before_the_stop(space: &Space<'_>) {
    let said = space.folder().join("said");
    let mut hooked = pod(
        "hooked",
        &format!(
            "trap 'echo term >>{0}; exit' TERM; echo ready; while :; do sleep 0.1; done",
            said.display()
        ),
    );
    let say = |word: &str| json!({ "exec": { "command": ["/bin/sh", "-c", format!("echo {word} >>{}", said.display())] } });
    hooked["spec"]["containers"][0]["lifecycle"] =
        json!({ "postStart": say("start"), "preStop": say("stop") });
    hooked["spec"]["terminationGracePeriodSeconds"] = 60.into();
    space.run(&hooked);
    space.until_said("hooked", "ready\n");
    space.delete("hooked");
    assert_eq!(
        std::fs::read_to_string(&said).expect("what was said"),
        "start\nstop\nterm\n"
    );

    // Asked of the container by HTTP: each request is a line of its server's log.
    let mut asked = pod(
        "asked",
        "mkdir -p /tmp/asked; echo 1 >/tmp/asked/page; exec busybox httpd -f -vv -p 8082 -h /tmp/asked",
    );
    let ask = json!({ "httpGet": { "path": "/page", "port": 8082 } });
    asked["spec"]["containers"][0]["lifecycle"] = json!({ "preStop": ask });
    asked["spec"]["containers"][0]["readinessProbe"] =
        json!({ "tcpSocket": { "port": 8082 }, "periodSeconds": 1 });
    space.run(&asked);
    let follower = space
        .kubectl_command(&["logs", "-f", "asked"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start kubectl logs");
    space.delete("asked");
    let told = follower.wait_with_output().expect("wait for kubectl");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("url:/page"), "{told}");

    let mut failing = pod("unhooked", "sleep 1732");
    failing["spec"]["containers"][0]["lifecycle"] = json!({ "postStart": { "exec": { "command": ["/bin/sh", "-c", "echo trouble; exit 3"] } } });
    space.apply(&failing);
    eventually("the failure of the hook is an event", || {
        let events = space.kubectl(&["get", "events"]).assert_success();
        events.contains("FailedPostStartHook").then_some(())
    });
    space.ended("unhooked");
}

fn termination_message_is_taken_from_file_or_log(space: &Space<'_>) {
    let written = space.end(&pod(
        "written",
        "echo the end >/dev/termination-log; exit 1",
    ));
    assert_eq!(end_of(&written).2, "the end\n", "{written}");
    let mut elsewhere = pod("elsewhere", "echo the other end >/tmp/my-last; exit 1");
    elsewhere["spec"]["containers"][0]["terminationMessagePath"] = "/tmp/my-last".into();
    assert_eq!(end_of(&space.end(&elsewhere)).2, "the other end\n");
    let mut logged = pod("logged", "echo no file; exit 1");
    logged["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    assert_eq!(end_of(&space.end(&logged)).2, "no file\n");
}

fn environment_and_working_directory_are_the_pods(space: &Space<'_>) {
    let mut pod = pod(
        "told",
        "echo $GREETING $NAME $HOSTNAME; pwd; echo \"$0 $1\"",
    );
    pod["spec"]["containers"][0]["env"] = json!([
        { "name": "GREETING", "value": "hello" },
        { "name": "NAME", "value": "$(GREETING)-again" },
    ]);
    pod["spec"]["containers"][0]["workingDir"] = "/usr/share".into();
    pod["spec"]["containers"][0]["args"] = json!(["zero", "one $(NAME)"]);
    space.end(&pod);
    assert_eq!(
        space.log("told"),
        "hello hello-again told\n/usr/share\nzero one hello-again\n"
    );
}

fn pods_share_what_they_write_or_have_their_own(space: &Space<'_>) {
    let file = format!("/etc/{}", space.name);
    let writer = pod("writes", &format!("echo shared >{file}; exec sleep 1733"));
    space.run(&writer);
    let mut reader = pod("reads", &format!("cat {file}"));
    if space.is_private() {
        // The class gives each its own, which a pod may take back.
        let seen = space.end(&pod(
            "alone",
            &format!("test ! -e {file} && test ! -e /tmp/{0}", space.name),
        ));
        assert_eq!(end_of(&seen).0, 0, "{seen}");
        let share = json!({ "reaper.runtime/overlay-scope": "node" });
        reader = pod("reads", &format!("cat {file} && rm {file}"));
        reader["metadata"]["annotations"] = share.clone();
        let mut first = pod("first", &format!("echo shared >{file}"));
        first["metadata"]["annotations"] = share;
        space.end(&first);
    } else {
        let mut alone = pod("alone", &format!("test ! -e {file}; echo own >{file}"));
        alone["metadata"]["annotations"] = json!({ "reaper.runtime/overlay-scope": "pod" });
        let alone = space.end(&alone);
        assert_eq!(end_of(&alone).0, 0, "{alone}");
    }
    let reader = space.end(&reader);
    assert_eq!(end_of(&reader).0, 0, "{reader}");
    assert_eq!(space.log("reads"), "shared\n");
    assert_eq!(
        space.exec("writes", &format!("cat {file}; rm {file}")),
        "shared\n"
    );
    assert!(
        !std::path::Path::new(&file).exists(),
        "the node stays as it was"
    );
}

fn processes_of_others_are_seen_as_the_class_says(space: &Space<'_>) {
    space.run(&pod("other", "exec sleep 1736"));
    let script = "pgrep -cx kubelet; pgrep -cxf 'sleep 173[6]'; echo $$$$";
    let seen = space.end(&pod("looks", script));
    assert_eq!(end_of(&seen).0, 0, "{seen}");
    let said = space.log("looks");
    if space.is_private() {
        assert_eq!(said, "0\n0\n1\n");
    } else {
        assert!(said.starts_with("1\n1\n") && said != "1\n1\n1\n", "{said}");
    }
}

fn pods_of_the_node_see_its_network_and_processes(space: &Space<'_>) {
    let mut host = pod("host", "exec sleep 1734");
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        host["spec"][field] = true.into();
    }
    let host = space.run(&host);
    assert_eq!(host["status"]["podIP"], host["status"]["hostIP"], "{host}");
    let own = |name: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        format!("{}\n", link.display())
    };
    for name in ["net", "ipc"] {
        assert_eq!(
            space.exec("host", &format!("readlink /proc/self/ns/{name}")),
            own(name)
        );
    }
    let kubelets = space.exec("host", "pgrep -x kubelet | wc -l");
    assert_eq!(kubelets, "1\n");
    // Others have a network of their own.
    space.run(&pod("other", "exec sleep 1735"));
    assert_ne!(
        space.exec("other", "readlink /proc/self/ns/net"),
        own("net")
    );
}
