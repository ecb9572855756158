//! Hooks of a spec, as containerd hands them over.

use std::{fs, path::PathBuf};

use reaper_tests::{Node, Options, api::Streams, on_each, on_each_with, spec::Workload};
use serde_json::{Value, json};

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Where hooks note that they were run.
fn trace(node: &Node) -> PathBuf {
    node.work().join("hooks")
}

fn traced(node: &Node) -> Vec<String> {
    let text = fs::read_to_string(trace(node)).unwrap_or_default();
    let _ = fs::remove_file(trace(node));
    text.lines().map(str::to_owned).collect()
}

fn hook(kind: &str, script: &str) -> Value {
    json!({
        "path": "/bin/sh",
        "args": ["sh", "-c", script, kind],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    })
}

/// Hooks of every kind, with this line of shell beside their note for one of them.
fn noting(node: &Node, also: Option<(&str, &str)>) -> Value {
    let mut hooks = json!({});
    for kind in KINDS {
        let also = also.filter(|(other, _)| *other == kind);
        let script = also.map_or("", |(_, script)| script);
        let note = format!("echo $0 >> {}; {script}", trace(node).display());
        hooks[kind] = json!([hook(kind, &note)]);
    }
    hooks
}

#[test]
fn hooks_of_a_task_are_run_once_each_in_the_order_of_its_life() {
    on_each(|node| {
        let api = node.api();
        let id = node.name("hooked");
        let workload = Workload::new(&["/bin/sleep", "1091"]).hooks(noting(node, None));
        api.create_container(node, &id, &workload)
            .expect("make a container");
        let task = api.create_task(node, &id, &workload, &Streams::default());
        task.expect("make a task");
        api.start(&id, "").expect("start it");
        api.kill(&id, "", 9).expect("kill it");
        api.wait(&id, "").finish().expect("its end");
        assert_eq!(
            fs::read_to_string(trace(node))
                .expect("a trace")
                .lines()
                .last(),
            Some("poststart")
        );
        api.delete_task(&id).expect("delete the task");
        assert_eq!(traced(node), KINDS);
        api.delete_container(&id).expect("delete the container");
    });
}

#[test]
fn ctr_reports_a_hook_that_fails_and_leaves_nothing() {
    on_each(|node| {
        for (kind, expected) in [
            ("createRuntime", 2),
            ("createContainer", 3),
            ("poststart", 5),
        ] {
            let also = Some((kind, "echo no such card; exit 3"));
            let id = node.name("failing");
            let workload = Workload::new(&["/bin/sleep", "1092"]).hooks(noting(node, also));
            let config = node.work().join("hooks.json");
            fs::write(&config, workload.config(node, &id).to_string()).expect("write a spec");
            let config = config.to_str().expect("a path in UTF-8");
            let runtime = node.runtime().to_owned();
            let output = node.ctr(&[
                "run",
                "--rm",
                "--runtime",
                &runtime,
                "--config",
                config,
                &id,
            ]);
            assert_ne!(output.code, 0, "{output:?}");
            let reason = format!("{kind} hook /bin/sh: exit code 3: no such card");
            assert!(output.stderr.contains(&reason), "{output:?}");
            let mut life = KINDS[..expected].to_vec();
            life.push("poststop");
            assert_eq!(traced(node), life, "{kind}");
            assert!(node.ctr(&["task", "ls", "-q"]).assert_success().is_empty());
            node.ctr(&["container", "rm", &id]);
        }
    });
}

#[test]
fn a_link_that_a_hook_makes_below_the_root_is_the_containers_own() {
    on_each_with(&Options::default().overlay(), |node| {
        // As the hooks that containerd writes for CDI's devices and NRI's plugins.
        let script = "bundle=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); \
            root=$bundle/$(sed 's/.*\"root\":{[^}]*\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json); \
            ln -s libc.so.6 $root/usr/lib/libreaper-$0.so && ldconfig -r $root";
        let hooks = json!({
            "createRuntime": [hook("createRuntime", script)],
            "createContainer": [hook("createContainer", script)],
        });
        let output = node.work().join("output");
        let workload = Workload::shell("ls /usr/lib/libreaper-*").hooks(hooks);
        let streams = Streams::default().stdout(format!("file://{}", output.display()));
        let api = node.api();
        let id = node.name("linked");
        api.create_container(node, &id, &workload)
            .expect("make a container");
        api.create_task(node, &id, &workload, &streams)
            .expect("make a task");
        api.start(&id, "").expect("start it");
        api.wait(&id, "").finish().expect("its end");
        let seen = fs::read_to_string(&output).expect("its output");
        let expected =
            "/usr/lib/libreaper-createContainer.so\n/usr/lib/libreaper-createRuntime.so\n";
        assert_eq!(seen, expected);
        assert!(!PathBuf::from("/usr/lib/libreaper-createRuntime.so").is_symlink());
        api.delete_task(&id).expect("delete the task");
        api.delete_container(&id).expect("delete the container");
    });
}
