//! Programs that cannot be started, and starts that are not wanted any more.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use reaper_tests::{
    Node,
    api::{Code, Streams},
    containerd::is_yardstick,
    cri::{container, messages::ContainerState},
    on_each,
    spec::Workload,
};

/// Files that cannot be executed, with a word that the refusal must have.
fn obstacles(node: &Node) -> Vec<(PathBuf, &'static str)> {
    let plain = node.work().join("plain-file");
    fs::write(&plain, "#!/bin/sh\nexit 0\n").expect("write a file");
    let script = node.work().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").expect("write a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("make it executable");
    vec![
        (node.work().join("no-such-program"), "no-such-program"),
        (plain, "plain-file"),
        (
            script,
            if is_yardstick() {
                "script"
            } else {
                "/no/such/interpreter"
            },
        ),
    ]
}

#[test]
fn failed_start_names_program_and_task_is_deletable() {
    on_each(|node| {
        let api = node.api();
        for (program, word) in obstacles(node) {
            let program = program.to_str().expect("a path in UTF-8");
            let id = node.name("refused");
            let workload = Workload::new(&[program]);
            api.create_container(node, &id, &workload)
                .expect("make a container");
            let created = api.create_task(node, &id, &workload, &Streams::default());
            let refusal = match created {
                Err(status) => status,
                Ok(_) => {
                    let refusal = api.start(&id, "").expect_err("start it");
                    api.wait(&id, "")
                        .finish()
                        .expect("a failed start has ended");
                    api.delete_task(&id).expect("delete what never started");
                    refusal
                }
            };
            assert!(
                refusal.message().contains(word),
                "no {word:?} in {refusal:?}"
            );
            api.delete_container(&id).expect("delete the container");
        }
    });
}

#[test]
fn ctr_reports_failed_start_and_cleans_up() {
    on_each(|node| {
        for (program, word) in obstacles(node) {
            let output = node.ctr_run("refused", &[program.to_str().expect("a path in UTF-8")]);
            assert_ne!(output.code, 0, "{output:?}");
            assert!(output.stderr.contains(word), "no {word:?} in {output:?}");
            assert!(node.ctr(&["task", "ls", "-q"]).assert_success().is_empty());
        }
    });
}

#[test]
fn cri_status_keeps_reason_of_failed_start() {
    on_each(|node| {
        let pod = node.run_pod("refusals");
        for (number, (program, word)) in obstacles(node).into_iter().enumerate() {
            let program = program.to_str().expect("a path in UTF-8");
            let id = pod
                .create(&container(&format!("refused-{number}"), &[program]))
                .expect("make a container");
            let refusal = node.cri().start(&id).expect_err("start it");
            assert!(
                refusal.message().contains(word),
                "no {word:?} in {refusal:?}"
            );
            let status = node.cri().status(&id).expect("ask for the status");
            assert_eq!(
                status.state(),
                ContainerState::ContainerExited,
                "{status:?}"
            );
            assert_ne!(status.exit_code, 0);
            assert!(status.message.contains(word), "{status:?}");
            node.cri().remove(&id).expect("remove what never started");
        }
        pod.stop();
        pod.remove();
    });
}

#[test]
fn kill_before_start_ends_task_without_running_it() {
    on_each(|node| {
        let done = node.work().join("done");
        let workload = Workload::new(&["/bin/touch", done.to_str().expect("a path in UTF-8")]);
        let id = node.create("gated", &workload, &Streams::default());
        let api = node.api();
        let state = api.state(&id, "").expect("state at the gate");
        assert_eq!(state.status().as_str_name(), "CREATED");
        assert!(state.pid > 0, "{state:?}");
        let waiting = api.wait(&id, "");
        api.kill(&id, "", 9).expect("kill it at the gate");
        assert_eq!(waiting.finish().expect("wait").code, 137);
        assert_eq!(
            api.state(&id, "").expect("state").status().as_str_name(),
            "STOPPED"
        );
        api.start(&id, "").expect_err("start what was killed");
        assert_eq!(node.delete(&id).code, 137);
        assert!(!done.exists(), "it never ran");
    });
}

#[test]
fn delete_ends_created_task_and_is_refused_for_running_one() {
    on_each(|node| {
        let workload = Workload::new(&["/bin/sleep", "1091"]);
        let id = node.create("created", &workload, &Streams::default());
        assert_eq!(node.delete(&id).code, 137);

        let id = node.run("running", &workload, &Streams::default());
        let refusal = node.api().delete_task(&id).expect_err("delete what runs");
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal:?}");
        node.destroy(&id);
        assert_eq!(
            node.api()
                .delete_task(&id)
                .expect_err("delete again")
                .code(),
            Code::NotFound
        );
    });
}

#[test]
fn a_wrong_bundle_is_refused_with_the_path_of_what_is_wrong() {
    on_each(|node| {
        let api = node.api();
        let id = node.name("relative");
        let workload = Workload::new(&["/bin/true"]).with("cwd", "not/absolute".into());
        api.create_container(node, &id, &workload)
            .expect("make a container");
        let refusal = api
            .create_task(node, &id, &workload, &Streams::default())
            .expect_err("a relative working directory");
        assert!(
            is_yardstick() || refusal.message().contains("process.cwd"),
            "{refusal:?}"
        );
        api.delete_container(&id).expect("delete the container");
    });
}
