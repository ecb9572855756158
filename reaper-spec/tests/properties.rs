//! What holds for every input.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Component, Path},
};

use proptest::prelude::*;
use reaper_spec::{
    Capabilities, CgroupsPath, Config, ConsoleSize, ContainerId, ContainerSpec, DeviceRule, ExecId,
    Exit, ExitStatus, FileRestrictions, Hooks, Mount, OverlayScope, ProcessSpec, Resource,
    Resources, Rlimit, Scheduling, SecurityLabels, Status, Timestamp, Transition, User,
};
use serde_json::{Map, Value, json};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Text that the kernel takes.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn process() -> impl Strategy<Value = ProcessSpec> {
    let id = 0..u32::MAX;
    let user = (
        id.clone(),
        id.clone(),
        prop::option::of(0..=0o777_u32),
        prop::collection::vec(id, 0..4),
    )
        .prop_map(|(uid, gid, umask, additional_gids)| User {
            uid,
            gid,
            umask,
            additional_gids,
        });
    let limit = |(resource, one, other): (Resource, u64, u64)| Rlimit {
        resource,
        soft: one.min(other),
        hard: one.max(other),
    };
    let rlimits =
        prop::sample::subsequence(Resource::ALL.to_vec(), 0..4).prop_flat_map(move |resources| {
            let limits = resources
                .into_iter()
                .map(|resource| (Just(resource), any::<u64>(), any::<u64>()).prop_map(limit));
            limits.collect::<Vec<_>>()
        });
    let set = || prop::collection::vec(text(), 0..3);
    let capabilities = (set(), set(), set(), set(), set()).prop_map(
        |(bounding, effective, inheritable, permitted, ambient)| Capabilities {
            bounding,
            effective,
            inheritable,
            permitted,
            ambient,
        },
    );
    let console = prop::option::of((any::<u16>(), any::<u16>()))
        .prop_map(|size| size.map(|(width, height)| ConsoleSize { width, height }));
    (
        ("[^\0]{1,12}", prop::collection::vec(text(), 0..5)),
        text().prop_map(|path| format!("/{path}")),
        prop::collection::vec(
            ("[^\0=]{1,8}", text()).prop_map(|(k, v)| format!("{k}={v}")),
            0..5,
        ),
        any::<bool>(),
        console,
        prop::option::of(user),
        rlimits,
        prop::option::of(-1000..=1000),
        any::<bool>(),
        prop::option::of(capabilities),
    )
        .prop_map(
            |(
                (program, rest),
                cwd,
                env,
                terminal,
                console_size,
                user,
                rlimits,
                oom_score_adj,
                no_new_privileges,
                capabilities,
            )| ProcessSpec {
                args: std::iter::once(program).chain(rest).collect(),
                cwd: cwd.into(),
                env,
                terminal,
                console_size,
                user,
                rlimits,
                oom_score_adj,
                no_new_privileges,
                capabilities,
                scheduling: Scheduling::default(),
                labels: SecurityLabels::default(),
            },
        )
}

/// A process as OCI writes it.
fn oci(process: &ProcessSpec) -> Map<String, Value> {
    let mut object = json!({
        "args": process.args,
        "cwd": process.cwd,
        "env": process.env,
        "terminal": process.terminal,
        "noNewPrivileges": process.no_new_privileges,
        "rlimits": process.rlimits.iter().map(|limit| {
            json!({"type": limit.resource.as_str(), "soft": limit.soft, "hard": limit.hard})
        }).collect::<Vec<_>>(),
        "oomScoreAdj": process.oom_score_adj,
    });
    if let Some(sets) = &process.capabilities {
        object["capabilities"] = serde_json::to_value(sets).unwrap();
    }
    if let Some(size) = process.console_size {
        object["consoleSize"] = json!({"width": size.width, "height": size.height});
    }
    if let Some(user) = &process.user {
        object["user"] = json!({
            "uid": user.uid, "gid": user.gid, "umask": user.umask,
            "additionalGids": user.additional_gids,
        });
    }
    object.as_object().unwrap().clone()
}

fn mount() -> impl Strategy<Value = Mount> {
    let options = prop::collection::vec(text(), 0..4);
    (
        text(),
        "(bind|tmpfs|proc)",
        prop::option::of(text()),
        options,
    )
        .prop_map(|(destination, kind, source, options)| Mount {
            destination: format!("/{destination}").into(),
            typ: Some(kind),
            source: source.map(|source| format!("/{source}").into()),
            options,
        })
}

fn restrictions() -> impl Strategy<Value = FileRestrictions> {
    let paths = || prop::collection::vec(text().prop_map(|path| format!("/{path}").into()), 0..3);
    (any::<bool>(), paths(), paths()).prop_map(|(read_only, masked_paths, read_only_paths)| {
        FileRestrictions {
            read_only,
            masked_paths,
            read_only_paths,
            lifted: false,
        }
    })
}

fn workload() -> impl Strategy<Value = ContainerSpec> {
    (
        process(),
        prop::option::of(text().prop_map(|path| format!("/{path}").into())),
        prop::collection::vec(mount(), 0..4),
        restrictions(),
        prop::option::of("/[a-z.]{1,4}x(/[a-z:]{1,4})?"),
        prop::collection::btree_map("[a-z./-]{0,12}", text(), 0..4),
    )
        .prop_map(
            |(process, rootfs, mounts, restrictions, cgroups_path, annotations)| ContainerSpec {
                process,
                restrictions: FileRestrictions {
                    // It is a property of the root, which a bundle may lack.
                    read_only: restrictions.read_only && rootfs.is_some(),
                    ..restrictions
                },
                rootfs,
                mounts,
                devices: Vec::new(),
                rootfs_propagation: None,
                cgroups_path: cgroups_path.map(|path| path.parse().unwrap()),
                resources: Resources {
                    devices: vec![DeviceRule {
                        allow: true,
                        access: Some("rwm".to_owned()),
                        ..DeviceRule::default()
                    }],
                    ..Resources::default()
                },
                seccomp: None,
                hooks: Hooks::default(),
                namespaces: Vec::new(),
                new_pid_namespace: false,
                sysctls: BTreeMap::new(),
                annotations,
                unsupported: Vec::new(),
            },
        )
}

/// A whole document with all of OCI's fields, in which only the workload's are replaced.
fn oci_document(workload: &ContainerSpec) -> Map<String, Value> {
    let whole = include_str!("corpus/containerd-2.1-cri-privileged.json");
    let mut document: Value = serde_json::from_str(whole).unwrap();
    document["process"] = oci(&workload.process).into();
    document["root"] = match &workload.rootfs {
        Some(path) => json!({"path": path, "readonly": workload.restrictions.read_only}),
        None => Value::Null,
    };
    let mount = |mount: &Mount| {
        json!({"destination": mount.destination, "type": mount.typ, "source": mount.source,
               "options": mount.options, "uidMappings": []})
    };
    document["mounts"] = workload.mounts.iter().map(mount).collect();
    document["linux"]["namespaces"] = Value::Null;
    document["linux"]["sysctl"] = Value::Null;
    document["linux"]["devices"] = Value::Null;
    document["linux"]["rootfsPropagation"] = json!("");
    document["linux"]["maskedPaths"] = json!(workload.restrictions.masked_paths);
    document["linux"]["readonlyPaths"] = json!(workload.restrictions.read_only_paths);
    document["linux"]["cgroupsPath"] = json!(workload.cgroups_path);
    document["annotations"] = json!(workload.annotations);
    document["hooks"] = json!({"poststop": []});
    document.as_object().unwrap().clone()
}

/// A break of one value of a good process: which key, its value, and the path of the complaint.
fn breaks() -> impl Strategy<Value = (&'static str, Value, &'static str)> {
    prop::sample::select(vec![
        ("args", json!([]), "process.args"),
        ("args", json!(["a", {}]), "process.args[1]"),
        ("args", json!([""]), "process.args[0]"),
        ("args", json!(["a", "\0"]), "process.args[1]"),
        ("cwd", json!("a/b"), "process.cwd"),
        ("cwd", json!(3), "process.cwd"),
        ("env", json!(["A=", "B=", "C"]), "process.env[2]"),
        ("env", json!("A=1"), "process.env"),
        ("terminal", json!(0), "process.terminal"),
        ("noNewPrivileges", json!([]), "process.noNewPrivileges"),
        ("oomScoreAdj", json!(-1001), "process.oomScoreAdj"),
        (
            "consoleSize",
            json!({"width": 1}),
            "process.consoleSize.height",
        ),
        ("user", json!({"gid": "root"}), "process.user.gid"),
        ("user", json!({"umask": -1}), "process.user.umask"),
        (
            "user",
            json!({"additionalGids": [0, null]}),
            "process.user.additionalGids[1]",
        ),
        (
            "rlimits",
            json!([{"type": "NOFILE"}]),
            "process.rlimits[0].type",
        ),
        (
            "rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 1}]),
            "process.rlimits[0].hard",
        ),
    ])
}

/// The entries of an object, reordered by `order`, as text with spaces.
fn shuffled(object: &Map<String, Value>, order: &[usize]) -> String {
    let mut entries: Vec<String> = object
        .iter()
        .map(|(key, value)| format!("{} :\n\t{value}", json!(key)))
        .collect();
    for (at, other) in order.iter().enumerate() {
        let length = entries.len();
        entries.swap(at % length, other % length);
    }
    format!("{{ {} }}", entries.join(" ,\n"))
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ContainerSpec::parse(&bytes, Path::new("/b"));
        let _ = ProcessSpec::parse(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = Config::default().apply_options(text);
        }
    }

    #[test]
    fn random_values_at_known_places_never_panic(
        place in prop::sample::select(vec![
            "/process", "/process/args", "/process/env", "/process/user", "/process/cwd",
            "/process/rlimits", "/process/consoleSize", "/root", "/root/path", "/mounts",
            "/mounts/0", "/annotations", "/linux", "/linux/cgroupsPath",
        ]),
        value in any_json(),
    ) {
        let mut document = json!({
            "process": {"args": [""], "env": [], "user": {}, "cwd": "/", "rlimits": [],
                        "consoleSize": {}},
            "root": {"path": ""}, "mounts": [{}], "annotations": {}, "linux": {"cgroupsPath": ""},
        });
        *document.pointer_mut(place).unwrap() = value;
        let _ = ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b"));
    }

    #[test]
    fn any_valid_process_parses_on_its_own(process in process()) {
        let text = json!(oci(&process)).to_string();
        prop_assert_eq!(ProcessSpec::parse(text.as_bytes()).unwrap(), process);
    }

    #[test]
    fn document_parses_regardless_of_order_spacing_and_unknown_fields(
        workload in workload(),
        order in prop::collection::vec(any::<usize>(), 0..12),
        unknown in any_json(),
    ) {
        let mut document = oci_document(&workload);
        document.insert("x-unknown".into(), unknown.clone());
        document["linux"]["x-unknown"] = unknown.clone();
        document["process"]["x-unknown"] = unknown;
        let text = shuffled(&document, &order);
        prop_assert_eq!(ContainerSpec::parse(text.as_bytes(), Path::new("/b")).unwrap(), workload);
    }

    #[test]
    fn workload_round_trips_through_json(workload in workload()) {
        let record = serde_json::to_vec(&workload).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ContainerSpec>(&record).unwrap(), workload);
    }

    #[test]
    fn valid_process_round_trips_through_json(process in process()) {
        prop_assert!(process.validate().is_ok());
        let record = serde_json::to_vec(&process).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ProcessSpec>(&record).unwrap(), process);
    }

    #[test]
    fn error_names_path_of_invalid_process_field(
        process in process(),
        (key, value, path) in breaks(),
    ) {
        let mut object = oci(&process);
        object.insert(key.to_owned(), value);
        let document = json!({"process": object}).to_string();
        let message = ContainerSpec::parse(document.as_bytes(), Path::new("/b")).unwrap_err().to_string();
        let prefix = format!("/b/config.json: {path}: expected ");
        prop_assert!(message.starts_with(&prefix), "{} for {}", message, path);
        prop_assert!(!message.contains('\n'), "{}", message);
    }

    #[test]
    fn error_names_place_of_invalid_field_in_a_process_alone(
        process in process(),
        (key, value, path) in breaks(),
    ) {
        let mut object = oci(&process);
        object.insert(key.to_owned(), value);
        let refused = ProcessSpec::parse(json!(object).to_string().as_bytes());
        let message = refused.unwrap_err().to_string();
        let expected = path.strip_prefix("process.").unwrap().to_owned() + ": expected ";
        prop_assert!(message.contains(&expected), "{} for {}", message, path);
    }

    #[test]
    fn wrong_setting_of_a_file_is_named_with_its_file(
        which in 0..Config::keys().count(),
        wrong in prop::sample::select(vec!["1979-05-27", "[[1.5]]", "{ x = 1979-05-27 }"]),
    ) {
        let (key, _) = Config::keys().nth(which).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{key} = {wrong}\n")).unwrap();
        let mut config = Config::default();
        let message = config.apply_file(file.path()).unwrap_err().to_string();
        prop_assert!(message.starts_with(file.path().to_str().unwrap()), "{}", message);
        prop_assert!(message.contains(key), "{}: {}", key, message);
        prop_assert!(!message.contains('\n'), "{}", message);
        prop_assert_eq!(config, Config::default());
    }

    #[test]
    fn refused_annotation_is_named(
        key in prop_oneof![
            prop::sample::select(vec![
                "overlay-scope", "overlay-name", "dns-mode", "network", "image",
            ]).prop_map(str::to_owned),
            "[a-z-]{1,12}",
        ],
        value in any::<String>(),
        is_allowed in any::<bool>(),
    ) {
        let mut config = Config::default();
        if is_allowed {
            config.annotations.allow.push(key.clone());
        }
        let annotation = format!("reaper.runtime/{key}");
        let pod = BTreeMap::from([(annotation.clone(), value)]);
        match config.apply_annotations(&pod) {
            Ok(()) => prop_assert!(is_allowed),
            Err(error) => {
                let message = error.to_string();
                // A scope that names a group asks for the name, too.
                let asks_for_name = message.contains("reaper.runtime/overlay-name");
                prop_assert!(message.contains(&annotation) || asks_for_name, "{}", message);
            }
        }
    }

    #[test]
    fn accepted_ids_are_safe_file_names(text in prop_oneof![any::<String>(), "[a-z._+/-]{0,6}"]) {
        if let Ok(id) = ContainerId::new(text.clone()) {
            prop_assert_eq!(id.as_str(), &text);
            let components: Vec<Component<'_>> = Path::new(&text).components().collect();
            prop_assert_eq!(components, [Component::Normal(text.as_ref())]);
            prop_assert!(text.len() <= 128 && text.is_ascii() && !text.starts_with(['-', '.']));
            prop_assert!(text != "ns" && text != "overlay");
            prop_assert!(ExecId::new(text.clone()).is_ok());
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<ContainerId>(&json).unwrap(), id);
        } else {
            prop_assert!(serde_json::from_value::<ContainerId>(json!(text)).is_err());
        }
    }

    #[test]
    fn ids_of_allowed_characters_are_accepted(text in "[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}") {
        prop_assume!(text != "ns" && text != "overlay");
        prop_assert!(ContainerId::new(text).is_ok());
    }

    #[test]
    fn cgroups_path_never_leads_above_root(text in prop_oneof![any::<String>(), "[a-c/.:-]{0,12}",
        "[a-c-]{0,6}\\.slice:[a-c]{0,2}:[a-c./]{0,4}"]) {
        if let Ok(path) = CgroupsPath::parse(&text) {
            let components: Vec<Component<'_>> = path.relative().components().collect();
            prop_assert!(!components.is_empty());
            prop_assert!(components.iter().all(|c| matches!(c, Component::Normal(_))));
            let json = serde_json::to_string(&path).unwrap();
            prop_assert_eq!(serde_json::from_str::<CgroupsPath>(&json).unwrap(), path);
        }
    }

    #[test]
    fn parsed_overlay_scope_is_safe_and_prints_as_written(text in prop_oneof![any::<String>(),
        "(node|namespace|pod|container)", "group:[a-z./_-]{0,8}"]) {
        if let Ok(scope) = text.parse::<OverlayScope>() {
            prop_assert_eq!(scope.to_string(), text);
            prop_assert!(scope.isolates_at_least(&scope));
            prop_assert!(scope.isolates_at_least(&OverlayScope::Node));
            if let OverlayScope::Group(name) = &scope {
                prop_assert!(ExecId::new(name.as_str()).is_ok());
            }
        }
    }

    #[test]
    fn annotations_never_panic_nor_lower_isolation(
        scope in prop::option::of(prop_oneof![any::<String>(),
            "(node|namespace|pod|container|group|group:a|group:b)"]),
        group in prop::option::of("[a-b/]{0,2}"),
        node in "(node|namespace|pod|container|group:a)",
        allow in prop::sample::subsequence(vec!["overlay-scope", "overlay-name"], 0..=2),
    ) {
        let mut config = Config::default();
        config.overlay.scope = node.parse().unwrap();
        config.annotations.allow = allow.into_iter().map(str::to_owned).collect();
        let before = config.clone();
        let mut pod = BTreeMap::new();
        pod.extend(scope.map(|value| ("reaper.runtime/overlay-scope".to_owned(), value)));
        pod.extend(group.map(|value| ("reaper.runtime/overlay-name".to_owned(), value)));
        let asked = !pod.is_empty();
        match config.apply_annotations(&pod) {
            Ok(()) => {
                prop_assert!(config.overlay.scope.isolates_at_least(&before.overlay.scope));
                prop_assert!(!asked || !before.annotations.allow.is_empty());
            }
            Err(_) => prop_assert_eq!(config, before),
        }
    }

    #[test]
    fn any_environment_gives_a_configuration_or_an_error_that_names_the_variable(
        which in 0..Config::keys().filter(|(_, variable)| variable.is_some()).count(),
        value in any::<String>(),
    ) {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let variables = Config::keys().filter_map(|(key, variable)| Some((key, variable?)));
        let (key, variable) = { variables }.nth(which).unwrap();
        let env = |name: &str| (name == variable).then(|| OsString::from(&value));
        if let Err(error) = Config::load(Some(empty.path()), &env) {
            let message = error.to_string();
            let prefix = format!("environment: {variable}: expected ");
            prop_assert!(message.starts_with(&prefix), "{}: {}", key, message);
        }
    }

    #[test]
    fn timestamps_and_exits_round_trip_through_json(
        seconds in 0..253_402_300_799_u64, nanos in 0..1_000_000_000_u32, code in any::<u8>(),
        signal in 1..65, core in any::<bool>(), reason in any::<String>(), which in 0..3,
    ) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanos);
        let status = match which {
            0 => ExitStatus::Exited { code },
            1 => ExitStatus::Signaled { signal, core },
            _ => ExitStatus::Unknown { reason },
        };
        let exit = Exit::new(status, Timestamp::from(time));
        let json = serde_json::to_string(&exit).unwrap();
        prop_assert_eq!(serde_json::from_str::<Exit>(&json).unwrap(), exit);
    }

    #[test]
    fn any_sequence_of_transitions_follows_the_table(steps in prop::collection::vec(0..5_usize, 0..30)) {
        let transitions = [Transition::Create, Transition::Start, Transition::Pause,
            Transition::Resume, Transition::Exit];
        let mut status = Status::Creating;
        let mut started = 0;
        for step in steps {
            match status.after(transitions[step]) {
                Ok(next) => {
                    prop_assert!(status != Status::Stopped, "the end is final");
                    prop_assert!(next != status && next != Status::Creating);
                    started += u32::from(transitions[step] == Transition::Start);
                    prop_assert!(started <= 1, "a program is executed once");
                    prop_assert!(next != Status::Running || started == 1);
                    status = next;
                }
                Err(error) => {
                    prop_assert!(transitions[step] != Transition::Exit || status == Status::Stopped);
                    let message = error.to_string();
                    prop_assert!(message.ends_with(status.as_str()), "{}", message);
                }
            }
        }
    }
}
