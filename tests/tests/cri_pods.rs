//! Pods, as the kubelet runs them.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reaper_tests::{
    containerd::is_yardstick,
    cri::{container, container_from, messages::ContainerState},
    image::BUSYBOX_PAUSE,
    on_each,
    procfs::Process,
    runtime::until,
    suite::reaper_program,
};

#[test]
fn an_init_container_that_fails_keeps_its_code_times_and_log() {
    on_each(|node| {
        let before = now();
        let pod = node.run_pod("init-fails");
        let script = "echo preparing; echo no luck >&2; exit 3";
        let id = pod.start(&container("init", &["/bin/sh", "-c", script]));
        let status = node.cri().exited(&id);
        assert_eq!(status.exit_code, 3);
        assert_eq!(status.reason, "Error");
        assert!(before <= status.created_at, "{status:?}");
        assert!(status.created_at <= status.started_at, "{status:?}");
        // containerd takes the time of the start once the start is over, and this one is short.
        assert!(status.created_at <= status.finished_at && status.finished_at <= now());
        until("both lines are logged", || {
            (pod.log("init").len() == 2).then_some(())
        });
        let mut log = pod.log("init");
        log.sort();
        assert_eq!(log, ["stderr F no luck", "stdout F preparing"]);
        node.cri()
            .remove(&id)
            .expect("remove a container that has exited");
        pod.stop();
        pod.remove();
        assert!(node.cri().containers().is_empty() && node.cri().pods().is_empty());
    });
}

#[test]
fn two_containers_of_a_pod_share_a_shim_and_end_each_on_its_own() {
    on_each(|node| {
        let pod = node.run_pod("two");
        let first = pod.start(&container("first", &["/bin/sleep", "1001"]));
        let second = pod.start(&container(
            "second",
            &["/bin/sh", "-c", "echo done; exit 0"],
        ));
        let other = node.run_pod("other");
        assert_eq!(
            node.shims().len(),
            2,
            "one shim for each pod: {:?}",
            node.shims()
        );

        let status = node.cri().exited(&second);
        assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
        until("its line is logged", || {
            (pod.log("second") == ["stdout F done"]).then_some(())
        });
        let mut listed = node.cri().containers();
        listed.sort();
        let mut expected = vec![
            (first.clone(), ContainerState::ContainerRunning),
            (second, ContainerState::ContainerExited),
        ];
        expected.sort();
        assert_eq!(listed, expected);

        node.cri()
            .stop(&first, 10)
            .expect("stop the container that runs");
        assert_eq!(
            node.cri().exited(&first).exit_code,
            143,
            "sleep dies of SIGTERM"
        );
        for pod in [pod, other] {
            pod.stop();
            pod.remove();
        }
    });
}

#[test]
fn stop_sends_sigterm_then_sigkill_after_grace_period() {
    on_each(|node| {
        let pod = node.run_pod("grace");
        let polite = "trap 'echo leaving; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
        let polite = pod.start(&container("polite", &["/bin/sh", "-c", polite]));
        let stubborn = "trap 'echo no' TERM; echo ready; while :; do sleep 0.1; done";
        let stubborn = pod.start(&container("stubborn", &["/bin/sh", "-c", stubborn]));
        for name in ["polite", "stubborn"] {
            let ready = || {
                pod.log(name)
                    .contains(&"stdout F ready".to_owned())
                    .then_some(())
            };
            until("its trap is set", ready);
        }

        // Had it been killed at the end of the period, its code were another.
        node.cri().stop(&polite, 60).expect("stop the polite one");
        assert_eq!(node.cri().exited(&polite).exit_code, 5);
        assert_eq!(pod.log("polite"), ["stdout F ready", "stdout F leaving"]);

        let start = Instant::now();
        node.cri()
            .stop(&stubborn, 2)
            .expect("stop the stubborn one");
        assert!(
            start.elapsed() >= Duration::from_secs(2),
            "the grace period is granted"
        );
        assert_eq!(node.cri().exited(&stubborn).exit_code, 137);
        assert_eq!(pod.log("stubborn"), ["stdout F ready", "stdout F no"]);
        pod.stop();
        pod.remove();
    });
}

#[test]
fn stopping_a_pod_ends_what_runs_in_it() {
    on_each(|node| {
        let pod = node.run_pod("stopped");
        let id = pod.start(&container("runs", &["/bin/sleep", "1002"]));
        pod.stop();
        let status = node.cri().exited(&id);
        assert_eq!(status.exit_code, 137, "{status:?}");
        pod.stop();
        pod.remove();
        assert!(node.cri().status(&id).is_err(), "it is gone with its pod");
    });
}

#[test]
fn logs_have_complete_lines_whatever_their_length() {
    on_each(|node| {
        let pod = node.run_pod("lines");
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; \
                      head -c 40000 /dev/zero | tr '\\0' x; echo; printf unfinished";
        let id = pod.start(&container("talks", &["/bin/sh", "-c", script]));
        assert_eq!(node.cri().exited(&id).exit_code, 0);
        // A line without an end is logged as a partial one, and with it the stream is complete.
        until("all is logged", || {
            pod.log("talks")
                .last()
                .is_some_and(|line| line.ends_with("unfinished"))
                .then_some(())
        });
        let log = pod.log("talks");
        for (number, line) in log.iter().take(2000).enumerate() {
            assert_eq!(line, &format!("stdout F line {number}"));
        }
        let long: usize = log[2000..log.len() - 1]
            .iter()
            .map(|line| {
                line.trim_start_matches("stdout P ")
                    .trim_start_matches("stdout F ")
                    .len()
            })
            .sum();
        assert_eq!(long, 40000);
        pod.stop();
        pod.remove();
    });
}

#[test]
fn containers_named_pause_are_executed() {
    on_each(|node| {
        let pod = node.run_pod("pauses");
        let echo = ["/bin/echo", "/pause", "pause"];
        let named = pod.start(&container_from(BUSYBOX_PAUSE, "pause", &echo));
        assert_eq!(node.cri().exited(&named).exit_code, 0);
        until("its words are logged", || {
            (pod.log("pause") == ["stdout F /pause pause"]).then_some(())
        });
        if !is_yardstick() {
            // A node has no such program, but it is looked for.
            let id = pod
                .create(&container("slash-pause", &["/pause"]))
                .expect("create");
            let refusal = node
                .cri()
                .start(&id)
                .expect_err("start what does not exist");
            assert!(refusal.message().contains("/pause"), "{refusal:?}");
        }
        pod.stop();
        pod.remove();
    });
}

#[test]
fn sandbox_has_no_process() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node.run_pod("empty");
        let [shim] = node.shims().try_into().expect("one shim");
        let below: Vec<Process> = reaper_tests::procfs::descendants(shim.pid);
        assert!(below.is_empty(), "{below:?}");
        pod.stop();
        pod.remove();
    });
}

#[test]
fn the_command_line_knows_containers_by_the_names_of_their_pods() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node.run_pod("named");
        let mut first = container(
            "first",
            &["/bin/sh", "-c", "echo one; echo two >&2; exec sleep 1002"],
        );
        // As the kubelet has it.
        first.log_path = "first/0.log".to_owned();
        fs::create_dir_all(pod.log_path("first").with_extension("")).expect("make the folder");
        let first = pod.start(&first);
        let second = pod.start(&container("second", &["/bin/sleep", "1003"]));
        let call = |args: &[&str]| {
            let mut command = Command::new(reaper_program("reaper-runtime"));
            command.arg("--root").arg(node.state_root()).args(args);
            command.output().expect("call reaper-runtime")
        };
        let ok = |args: &[&str]| {
            let output = call(args);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{args:?}: {error}");
            String::from_utf8(output.stdout).expect("text")
        };
        let listed = ok(&["--namespace", "k8s.io", "list"]);
        let line = listed
            .lines()
            .find(|line| line.starts_with(&first))
            .expect("listed");
        assert!(
            line.contains("default/named") && line.ends_with("first"),
            "{listed}"
        );
        assert!(ok(&["ps", "default/named/first"]).contains("sleep 1002"));
        assert_eq!(ok(&["exec", "default/named/first", "echo", "in"]), "in\n");
        until("both lines are logged", || {
            let logged = ok(&["logs", "default/named/first"]);
            let mut logged: Vec<_> = logged.lines().map(str::to_owned).collect();
            logged.sort();
            (logged == ["one", "two"]).then_some(())
        });
        let ambiguous = call(&["kill", "default/named"]);
        let error = String::from_utf8_lossy(&ambiguous.stderr);
        assert!(!ambiguous.status.success());
        assert!(error.contains(&first) && error.contains(&second), "{error}");
        ok(&["kill", "default/named/second", "TERM"]);
        assert_eq!(node.cri().exited(&second).exit_code, 143);
        assert_eq!(
            node.cri().status(&first).expect("ask").state(),
            ContainerState::ContainerRunning
        );
        pod.stop();
        pod.remove();
    });
}

/// Now, as the CRI tells times.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    i64::try_from(since.as_nanos()).expect("a time that fits")
}
