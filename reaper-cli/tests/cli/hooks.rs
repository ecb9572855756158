//! Hooks of a bundle, over an overlay.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

/// A hook that runs a line of shell, where `$0` is its kind.
pub(crate) fn hook(kind: &str, script: &str) -> Value {
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    json!({"path": "/bin/sh", "args": ["sh", "-c", script, kind], "env": [path]})
}

pub(crate) const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A bundle whose hooks of every kind note that they were run, with another one of the kind `also`.
fn noting(rig: &Rig, script: &str, also: Option<(&str, &str)>) -> String {
    let trace = rig.path("trace");
    let note = format!("echo $0 >> {}", trace.display());
    let mut hooks = json!({});
    for kind in KINDS {
        hooks[kind] = json!([hook(kind, &note)]);
        if let Some((_, script)) = also.filter(|(other, _)| *other == kind) {
            hooks[kind].as_array_mut().unwrap().push(hook(kind, script));
        }
    }
    // Below /run, where the view has the host's files.
    rig.bundle_with("bundle", &shell(script), &json!({ "hooks": hooks }))
}

fn trace(rig: &Rig) -> Vec<String> {
    let trace = fs::read_to_string(rig.path("trace")).unwrap_or_default();
    trace.lines().map(str::to_owned).collect()
}

#[test]
fn hooks_of_a_bundle_are_run_by_create_start_and_delete() {
    let rig = Rig::with_overlay();
    let bundle = noting(&rig, "exec sleep 1000", None);
    rig.quietly(&["create", "--bundle", &bundle, "c"]);
    assert_eq!(trace(&rig), KINDS[..3]);
    rig.quietly(&["start", "c"]);
    assert_eq!(trace(&rig), KINDS[..5]);
    rig.ok(&["exec", "c", "true"]);
    rig.ok(&["kill", "c", "KILL"]);
    rig.call(&["wait", "c"]);
    assert_eq!(trace(&rig), KINDS[..5]);
    rig.ok(&["delete", "c"]);
    assert_eq!(trace(&rig), KINDS);

    fs::remove_file(rig.path("trace")).unwrap();
    rig.quietly(&["run", "--bundle", &noting(&rig, "true", None), "c"]);
    assert_eq!(trace(&rig), KINDS);

    fs::remove_file(rig.path("trace")).unwrap();
    rig.quietly(&[
        "run",
        "--detach",
        "--bundle",
        &noting(&rig, "exec sleep 1000", None),
        "c",
    ]);
    rig.ok(&["delete", "--force", "c"]);
    assert_eq!(trace(&rig), KINDS);
}

#[test]
fn hooks_that_fail_are_named_with_what_they_said() {
    let rig = Rig::with_overlay();
    let failing = "echo no such card; exit 3";
    for (kind, expected) in [
        (
            "createRuntime",
            &["prestart", "createRuntime", "poststop"][..],
        ),
        (
            "createContainer",
            &["prestart", "createRuntime", "createContainer", "poststop"],
        ),
        (
            "startContainer",
            &[
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststop",
            ],
        ),
        ("poststart", &KINDS),
    ] {
        let bundle = noting(&rig, "exec sleep 1000", Some((kind, failing)));
        let said = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
        let reason = format!("run the {kind} hook /bin/sh: exit code 3: no such card");
        assert!(said.contains(&reason), "{said}");
        assert_eq!(trace(&rig), expected);
        fs::remove_file(rig.path("trace")).unwrap();
        assert_eq!(rig.ok(&["list", "--quiet"]), "");
    }
}

#[test]
fn hooks_find_the_root_of_the_container_in_the_bundle_that_they_are_told_of() {
    let rig = Rig::with_overlay();
    // As the hooks do that containerd writes for devices of CDI.
    let script = "bundle=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); \
        root=$bundle/$(sed 's/.*\"root\":{[^}]*\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json); \
        mkdir -p $root/usr/local/lib/reaper-test && \
        ln -s libc.so.6 $root/usr/local/lib/reaper-test/lib$0.so && ldconfig -r $root";
    let hooks = json!({
        "createRuntime": [hook("createRuntime", script)],
        "createContainer": [hook("createContainer", script)],
    });
    let cache = fs::read("/etc/ld.so.cache").unwrap();
    for root in ["rootfs", "/nonexistent/merged"] {
        let fields = json!({ "hooks": hooks, "root": { "path": root } });
        let look = "ls /usr/local/lib/reaper-test; cat /etc/ld.so.cache | wc -c >/dev/null; \
            find /etc/ld.so.cache -newer $0";
        let mut process = shell(look);
        let stamp = rig.path("config.toml");
        process["args"].as_array_mut().unwrap().push(json!(stamp));
        let bundle = rig.bundle_with("bundle", &process, &fields);
        let seen = rig.call(&["run", "--bundle", &bundle, "c"]);
        let seen = String::from_utf8(seen.stdout).unwrap();
        // The second time the links are there already, and the overlay is the same.
        let expected = "libcreateContainer.so\nlibcreateRuntime.so\n/etc/ld.so.cache\n";
        match root {
            "rootfs" => assert_eq!(seen, expected),
            _ => assert_eq!(seen, ""),
        }
    }
    assert!(!Path::new("/usr/local/lib/reaper-test").exists());
    assert_eq!(fs::read("/etc/ld.so.cache").unwrap(), cache);
}

#[test]
fn hooks_that_are_off_are_not_run_and_the_log_says_so() {
    let rig = Rig::new();
    let log = rig.path("runtime.log");
    rig.configure("hooks = \"off\"\n", &format!("runtime = {log:?}\n"));
    let bundle = noting(&rig, "true", Some(("createRuntime", "exit 1")));
    rig.quietly(&["run", "--bundle", &bundle, "c"]);
    assert_eq!(trace(&rig), [] as [&str; 0]);
    let log = fs::read_to_string(log).unwrap();
    assert!(
        log.contains("the hooks of the spec are not run: hooks is"),
        "{log}"
    );
}
