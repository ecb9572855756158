//! Bundles that are wrong are refused, saying where and why.

use std::{fs, num::NonZeroU32, os::unix::net::UnixListener, path::Path};

use reaper_spec::{
    Bundle, ContainerSpec, Error, Hook, HookKind, Hooks, MAX_CONFIG_SIZE, NetworkMode, PidMode,
    ProcessSpec,
};
use serde_json::{Value, json};

/// What is said about `process` merged into a good one.
fn refused(process: Value) -> String {
    let mut document = json!({"process": {"args": ["true"]}});
    for (key, value) in process.as_object().unwrap() {
        document["process"][key] = value.clone();
    }
    refused_document(&document)
}

fn refused_document(document: &Value) -> String {
    let error = ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b")).unwrap_err();
    let message = error.to_string();
    message
        .strip_prefix("/b/config.json: ")
        .unwrap_or_else(|| panic!("{message}"))
        .to_owned()
}

#[test]
fn a_wrong_process_is_named_by_its_path() {
    let cases = [
        (
            json!({"args": null}),
            "process.args: expected an array of strings: the program and its \
                                 arguments, found null",
        ),
        (
            json!({"args": []}),
            "process.args: expected an array with at least a program, found an \
                               empty array",
        ),
        (
            json!({"args": "ls"}),
            "process.args: expected an array of strings, found the string \
                                 \"ls\"",
        ),
        (
            json!({"args": ["", "x"]}),
            "process.args[0]: expected the name or path of a program, \
                                      found an empty string",
        ),
        (
            json!({"args": ["a", "b", 3]}),
            "process.args[2]: expected a string, found the number 3",
        ),
        (
            json!({"args": ["a", "b\0c"]}),
            "process.args[1]: expected text without NUL, found NUL \
                                          at byte 1",
        ),
        (
            json!({"cwd": "tmp"}),
            "process.cwd: expected an absolute path, found \"tmp\"",
        ),
        (
            json!({"cwd": ""}),
            "process.cwd: expected an absolute path, found \"\"",
        ),
        (
            json!({"cwd": "/\0"}),
            "process.cwd: expected text without NUL, found NUL at byte 1",
        ),
        (
            json!({"env": ["A=1", "B"]}),
            "process.env[1]: expected NAME=VALUE, found \"B\"",
        ),
        (
            json!({"env": ["=1"]}),
            "process.env[0]: expected NAME=VALUE, found \"=1\"",
        ),
        (
            json!({"env": {"A": "1"}}),
            "process.env: expected an array of NAME=VALUE strings, found \
                                      an object",
        ),
        (
            json!({"terminal": "yes"}),
            "process.terminal: expected true or false, found the string \
                                      \"yes\"",
        ),
        (
            json!({"consoleSize": {"height": 70000, "width": 80}}),
            "process.consoleSize.height: expected an integer from 0 to 65535, found the number 70000",
        ),
        (
            json!({"consoleSize": {"height": 70}}),
            "process.consoleSize.width: expected an integer from 0 to 65535, found nothing",
        ),
        (
            json!({"user": 0}),
            "process.user: expected an object, found the number 0",
        ),
        (
            json!({"user": {"uid": -1}}),
            "process.user.uid: expected an integer from 0 to \
                                        4294967294, found the number -1",
        ),
        (
            json!({"user": {"gid": 4294967295_u32}}),
            "process.user.gid: expected an integer from 0 \
                                                    to 4294967294, found the number 4294967295",
        ),
        (
            json!({"user": {"umask": 512}}),
            "process.user.umask: expected an integer from 0 to 511, \
                                           found the number 512",
        ),
        (
            json!({"user": {"additionalGids": [1, 2.5]}}),
            "process.user.additionalGids[1]: expected an integer from 0 to 4294967294, found the \
          number 2.5",
        ),
        (
            json!({"oomScoreAdj": 1001}),
            "process.oomScoreAdj: expected an integer from -1000 to \
                                        1000, found the number 1001",
        ),
        (
            json!({"rlimits": [{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]}),
            "process.rlimits[0].type: expected a resource such as RLIMIT_NOFILE, found the string \
          \"RLIMIT_FOO\"",
        ),
        (
            json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}),
            "process.rlimits[0].soft: expected at most the hard limit, 1, found 2",
        ),
        (
            json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1},
                            {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]}),
            "process.rlimits[1].type: expected each resource once, found RLIMIT_CORE again",
        ),
        (
            json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": -1, "hard": 1}]}),
            "process.rlimits[0].soft: expected an integer from 0 to 18446744073709551615, found the \
          number -1",
        ),
    ];
    for (process, expected) in cases {
        assert_eq!(refused(process.clone()), expected, "{process}");
    }
}

#[test]
fn wrong_values_in_config_are_named_by_their_path() {
    let with = |key: &str, value: Value| json!({"process": {"args": ["true"]}, key: value});
    let cases = [
        (
            json!([]),
            "the document: expected an object, OCI's config.json, found an array",
        ),
        (
            json!({}),
            "process: expected an object with the process's args, found nothing",
        ),
        (
            json!({"process": 1}),
            "process: expected an object with the process's args, found the \
                                 number 1",
        ),
        (
            with("root", json!({})),
            "root.path: expected a string, found nothing",
        ),
        (
            with("root", json!({"path": ""})),
            "root.path: expected a path, found the string \"\"",
        ),
        (
            with("mounts", json!({})),
            "mounts: expected an array of mounts, found an object",
        ),
        (
            with("mounts", json!([null])),
            "mounts[0]: expected an object with a destination, found \
                                         null",
        ),
        (
            with("mounts", json!([{"destination": "data"}])),
            "mounts[0].destination: expected an absolute path, found the string \"data\"",
        ),
        (
            with(
                "mounts",
                json!([{"destination": "/a"}, {"destination": "/b", "options": ["\0"]}]),
            ),
            "mounts[1].options[0]: expected text without NUL, found NUL at byte 0",
        ),
        (
            with("mounts", json!([{"destination": "/a", "source": 1}])),
            "mounts[0].source: expected a string, found the number 1",
        ),
        (
            with("annotations", json!({"a/b": 1})),
            "annotations[\"a/b\"]: expected a string, found the number 1",
        ),
        (
            with("linux", json!({"cgroupsPath": "/a/../../b"})),
            "linux.cgroupsPath: expected a cgroup's path (it leaves its place by \"..\"), found the \
          string \"/a/../../b\"",
        ),
        (
            with("ociVersion", json!("2.0.0")),
            "ociVersion: expected a version 1 of the runtime-spec, such as \"1.0.2\", found the string \
             \"2.0.0\"",
        ),
        (
            with("root", json!({"path": "rootfs", "readonly": "yes"})),
            "root.readonly: expected true or false, found the string \"yes\"",
        ),
        (
            with(
                "linux",
                json!({"maskedPaths": ["/proc/keys", "proc/kcore"]}),
            ),
            "linux.maskedPaths[1]: expected an absolute path, found the string \"proc/kcore\"",
        ),
        (
            with("linux", json!({"readonlyPaths": "/proc/sys"})),
            "linux.readonlyPaths: expected an array of paths, found the string \"/proc/sys\"",
        ),
        (
            with(
                "linux",
                json!({"devices": [{"path": "/dev/a", "type": "c", "major": 1}]}),
            ),
            "linux.devices[0].minor: expected an integer from 0 to 4294967295, found nothing",
        ),
        (
            with(
                "linux",
                json!({"devices": [{"path": "/dev/a", "type": "x"}]}),
            ),
            "linux.devices[0].type: expected c, u, b or p, found the string \"x\"",
        ),
        (
            with("linux", json!({"rootfsPropagation": "rsometimes"})),
            "linux.rootfsPropagation: expected shared, slave, private or unbindable, found the string \
             \"rsometimes\"",
        ),
        (
            with("linux", json!("x")),
            "linux: expected an object, found the string \"x\"",
        ),
    ];
    for (document, expected) in cases {
        assert_eq!(refused_document(&document), expected, "{document}");
    }
}

#[test]
fn absent_and_null_values_have_defaults() {
    let least = json!({"process": {"args": ["true"]}});
    let nulls = json!({
        "process": {"args": ["true"], "cwd": null, "env": null, "user": null, "rlimits": null,
                    "terminal": null, "consoleSize": null, "oomScoreAdj": null},
        "root": null, "mounts": null, "annotations": null, "linux": null, "unknown": {"a": 1},
    });
    let parse = |json: &Value| ContainerSpec::parse(json.to_string().as_bytes(), Path::new("/b"));
    let workload = parse(&least).unwrap();
    assert_eq!(workload, parse(&nulls).unwrap());
    assert_eq!(workload.process, ProcessSpec::new(["true"], "/").unwrap());
    assert_eq!((workload.rootfs, workload.cgroups_path), (None, None));

    let empty = json!({"process": {"args": ["true"]}, "linux": {"cgroupsPath": ""}});
    assert_eq!(parse(&empty).unwrap().cgroups_path, None);
}

#[test]
fn relative_sources_are_below_the_bundle_where_they_are_paths() {
    let document = json!({
        "process": {"args": ["true"]},
        "root": {"path": "/images/1"},
        "mounts": [
            {"destination": "/a", "source": "data", "options": ["rbind"]},
            {"destination": "/b", "source": "data", "type": "none", "options": ["bind", "ro"]},
            {"destination": "/c", "source": "tmpfs", "type": "tmpfs"},
            {"destination": "/d", "source": "/srv", "type": "bind"},
        ],
    });
    let workload = ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b")).unwrap();
    assert_eq!(workload.rootfs.as_deref(), Some(Path::new("/images/1")));
    let sources: Vec<_> = workload
        .mounts
        .iter()
        .map(|mount| mount.source.as_deref().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(sources, ["/b/data", "/b/data", "tmpfs", "/srv"]);
    let binds: Vec<bool> = workload
        .mounts
        .iter()
        .map(reaper_spec::Mount::is_bind)
        .collect();
    assert_eq!(binds, [true, true, false, true]);
}

#[test]
fn what_a_process_on_the_host_cannot_have_is_refused_by_name() {
    let parse =
        |document: &Value| ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b"));
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    for (linux, field, what) in [
        (
            json!({"namespaces": [{"type": "pid"}, {"type": "user"}]}),
            "namespaces",
            "user namespace",
        ),
        (
            json!({"namespaces": [{"type": "time"}]}),
            "namespaces",
            "time namespace",
        ),
        (
            json!({"uidMappings": mapping}),
            "uidMappings",
            "user namespace",
        ),
        (
            json!({"gidMappings": mapping}),
            "gidMappings",
            "user namespace",
        ),
        (
            json!({"timeOffsets": {"monotonic": {"secs": 1}}}),
            "timeOffsets",
            "time namespace",
        ),
        (
            json!({"netDevices": {"eth0": {}}}),
            "netDevices",
            "network devices",
        ),
        (
            json!({"memoryPolicy": {"mode": "MPOL_BIND"}}),
            "memoryPolicy",
            "memory policy",
        ),
        (json!({"intelRdt": {"closID": "a"}}), "intelRdt", "resctrl"),
        (
            json!({"sysctl": {"kernel.shmmax": "1"}}),
            "sysctl",
            "kernel parameter",
        ),
    ] {
        let document = json!({"process": {"args": ["true"]}, "linux": linux});
        let spec = parse(&document).unwrap();
        let error = spec.check_host(false).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("linux.{field}")) && error.contains(what),
            "{error}"
        );
        // An ordinary user's container has users of its own anyway.
        assert_eq!(spec.check_host(true).is_ok(), what == "user namespace");
    }
    let harmless = json!({"process": {"args": ["true"]}, "hooks": {"prestart": [], "poststop": [{"path": "/bin/x"}]}, "linux": {
        "sysctl": {"net.ipv4.ping_group_range": "0 2147483647"},
        "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts", "path": "/proc/1/ns/uts"}],
        "uidMappings": [], "gidMappings": null, "timeOffsets": {}, "intelRdt": null,
    }});
    parse(&harmless).unwrap().check_host(false).unwrap();
}

#[test]
fn namespace_that_is_named_twice_is_refused() {
    let parse = |namespaces: Value| {
        let document = json!({"process": {"args": ["true"]}, "linux": {"namespaces": namespaces}});
        ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b"))
    };
    let network = |path: &str| json!({"type": "network", "path": path});
    for again in [json!({"type": "network"}), network("/a"), network("/b")] {
        let error = parse(json!([network("/a"), {"type": "pid"}, again])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/b/config.json: linux.namespaces: expected one network namespace at most, \
             found an array"
        );
    }
    assert!(parse(json!([network("/a"), {"type": "pid"}])).is_ok());
}

#[test]
fn log_names_the_parameters_that_the_nodes_network_keeps() {
    let document = json!({"process": {"args": ["true"]}, "linux": {
        "namespaces": [{"type": "network", "path": "/a"}],
        "sysctl": {"net.ipv4.ping_group_range": "0 1", "net.ipv4.ip_unprivileged_port_start": "0"},
    }});
    let json = document.to_string();
    let mut spec = ContainerSpec::parse(json.as_bytes(), Path::new("/b")).unwrap();
    assert_eq!(NetworkMode::Spec.apply(&mut spec), None);
    let expected = "the network of the spec is not joined, and net.ipv4.ip_unprivileged_port_start and \
                    net.ipv4.ping_group_range not set: network is \"host\"";
    assert_eq!(
        NetworkMode::Host.apply(&mut spec).as_deref(),
        Some(expected)
    );
    assert!(spec.check_host(false).is_ok() && spec.network_sysctls().is_empty());
}

#[test]
fn a_pid_namespace_without_a_path_is_a_new_one_where_the_admin_says_so() {
    let path = json!({"type": "pid", "path": "/proc/1/ns/pid"});
    for (namespaces, new, joined) in [
        (json!([{"type": "mount"}]), false, 0),
        (json!([{"type": "mount"}, {"type": "pid"}]), true, 0),
        (json!([{"type": "mount"}, path]), false, 1),
    ] {
        let document =
            json!({"process": {"args": ["true"]}, "linux": {"namespaces": namespaces}}).to_string();
        let mut spec = ContainerSpec::parse(document.as_bytes(), Path::new("/b")).unwrap();
        assert_eq!(spec.new_pid_namespace, new);
        assert_eq!(spec.namespaces.len(), joined);
        PidMode::Private.apply(&mut spec);
        assert_eq!(spec.new_pid_namespace, new);
        PidMode::default().apply(&mut spec);
        assert!(!spec.new_pid_namespace);
        assert_eq!(spec.namespaces.len(), joined);
    }
}

#[test]
fn hooks_of_every_kind_are_read_and_checked() {
    let parse =
        |document: &Value| ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b"));
    let kinds = HookKind::ALL.map(HookKind::as_str);
    for kind in kinds {
        let hook = json!({"path": "/bin/x", "args": ["x", ""], "env": ["A=1"], "timeout": 3});
        let document =
            json!({"process": {"args": ["true"]}, "hooks": {kind: [hook, {"path": "/y"}]}});
        let hooks = parse(&document).unwrap().hooks;
        assert!(!hooks.is_empty());
        let found: Vec<_> = HookKind::ALL
            .iter()
            .flat_map(|&kind| hooks.of(kind))
            .collect();
        let bare = Hook {
            path: "/y".into(),
            args: Vec::new(),
            env: Vec::new(),
            timeout: None,
        };
        let full = Hook {
            path: "/bin/x".into(),
            args: vec!["x".to_owned(), String::new()],
            env: vec!["A=1".to_owned()],
            timeout: NonZeroU32::new(3),
        };
        assert_eq!(found, [&full, &bare], "{kind}");
        let written = serde_json::to_value(&hooks).unwrap();
        assert_eq!(written[kind][1]["path"], "/y", "{written}");
        assert_eq!(serde_json::from_value::<Hooks>(written).unwrap(), hooks);
    }
    for (hook, place) in [
        (json!({}), "path"),
        (json!({"path": "bin/x"}), "path"),
        (json!({"path": "/x", "args": [1]}), "args[0]"),
        (json!({"path": "/x", "env": ["A"]}), "env[0]"),
        (json!({"path": "/x", "timeout": 0}), "timeout"),
        (json!({"path": "/x", "timeout": -1}), "timeout"),
    ] {
        let document = json!({"process": {"args": ["true"]}, "hooks": {"poststop": [hook]}});
        let error = parse(&document).unwrap_err().to_string();
        let expected = format!("/b/config.json: hooks.poststop[0].{place}: expected ");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn mappings_of_a_mount_ask_for_an_idmapped_one() {
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let document = json!({
        "process": {"args": ["true"]},
        "mounts": [
            {"destination": "/a", "source": "/a", "options": ["rbind"], "uidMappings": mapping},
            {"destination": "/b", "source": "/b", "options": ["ridmap"], "gidMappings": mapping},
            {"destination": "/c", "source": "/c", "options": ["rbind"], "gidMappings": []},
        ],
    });
    let workload = ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b")).unwrap();
    let options: Vec<_> = workload.mounts.iter().map(|m| m.options.clone()).collect();
    assert_eq!(
        options,
        [vec!["rbind", "idmap"], vec!["ridmap"], vec!["rbind"]]
    );
}

#[test]
fn a_folder_without_a_readable_config_is_no_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");

    let error = Bundle::load(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::NoConfigJson { bundle } if bundle == folder.path()),
        "{error}"
    );

    let error = Bundle::load(&folder.path().join("missing")).unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("missing/config.json")));

    // A socket stands for what would block or never end: a FIFO, a device.
    let _socket = UnixListener::bind(&config).unwrap();
    let error = Bundle::load(folder.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("config.json: not a regular file"),
        "{error}"
    );
    fs::remove_file(&config).unwrap();

    fs::create_dir(&config).unwrap();
    let error = Bundle::load(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

#[test]
fn a_huge_file_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let file = fs::File::create(&config).unwrap();
    file.set_len(100 << 20).unwrap();
    let error = Bundle::load(folder.path()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                limit: MAX_CONFIG_SIZE,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn deep_nesting_and_broken_json_are_clear_errors() {
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &[u8]| {
        fs::write(folder.path().join("config.json"), text).unwrap();
        Bundle::load(folder.path()).unwrap_err().to_string()
    };
    let nested = [
        br#"{"process":{"args":["true"]},"x":"#,
        "[".repeat(1_000_000).as_bytes(),
    ]
    .concat();
    let message = load(&nested);
    assert!(
        message.contains("config.json: not valid JSON: it is nested too deeply"),
        "{message}"
    );

    let message = load(b"{\n  \"process\": {,}\n}");
    assert!(message.contains("config.json: not valid JSON: ") && message.contains("line 2"));
    assert!(load(b"").contains("not valid JSON: EOF"));
    assert!(load(b"{\"process\":{\"args\":[\"\xff\"]}}").contains("not valid JSON"));
}

#[test]
fn a_relative_bundle_path_becomes_absolute() {
    let here = std::env::current_dir().unwrap();
    let folder = tempfile::tempdir_in(&here).unwrap();
    fs::write(
        folder.path().join("config.json"),
        r#"{"process":{"args":["true"]}}"#,
    )
    .unwrap();
    let bundle = Bundle::load(folder.path().strip_prefix(&here).unwrap()).unwrap();
    assert_eq!(bundle.path(), folder.path());
    assert_eq!(bundle.into_container_spec().process.args, ["true"]);
}

#[test]
fn invalid_part_that_is_not_read_fails_only_the_full_oci_spec() {
    let folder = tempfile::tempdir().unwrap();
    let document = json!({
        "process": {"args": ["true"]},
        "hostname": 5,
    });
    fs::write(folder.path().join("config.json"), document.to_string()).unwrap();
    let bundle = Bundle::load(folder.path()).unwrap();
    let error = bundle.spec().unwrap_err();
    assert!(
        matches!(&error, Error::Schema { at, .. } if at == "hostname"),
        "{error}"
    );
    assert!(error.to_string().contains('5'), "{error}");
}

#[test]
fn process_is_loaded_from_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("process.json");
    fs::write(
        &file,
        r#"{"args":["id"],"cwd":"/","user":{"uid":33,"gid":33}}"#,
    )
    .unwrap();
    let process = ProcessSpec::load(&file).unwrap();
    assert_eq!(process.user.unwrap().uid, 33);

    fs::write(&file, r#"{"args":["id"],"cwd":"x"}"#).unwrap();
    let error = ProcessSpec::load(&file).unwrap_err().to_string();
    let expected = format!(
        "{}: cwd: expected an absolute path, found \"x\"",
        file.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn a_process_made_by_hand_or_deserialised_is_checked_too() {
    let mut process = ProcessSpec::new(["true"], "/").unwrap();
    process.env.push("no equals sign".into());
    let message = process.validate().unwrap_err().to_string();
    assert_eq!(
        message,
        "env[0]: expected NAME=VALUE, found \"no equals sign\""
    );

    let stored = serde_json::to_string(&process).unwrap();
    let error = serde_json::from_str::<ProcessSpec>(&stored)
        .unwrap_err()
        .to_string();
    assert!(error.contains(&message), "{error}");
}
