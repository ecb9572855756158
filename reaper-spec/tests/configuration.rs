//! The sources of the configuration, their order, and what is said when they are wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::Path,
    time::Duration,
};

use reaper_spec::{
    CgroupMode, Config, ContainerSpec, DeviceMode, DnsMode, Error, HookMode, ImageMode,
    MonitorCgroupMode, OverlayConfig, OverlayScope, PodAnnotation, Privileges, RetentionConfig,
    StoreKind,
};

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    file
}

/// Loads a file with this text and these variables.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let file = file(text);
    Config::load(Some(file.path()), &env(variables))
}

fn env(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + use<> {
    let variables: BTreeMap<String, OsString> = variables
        .iter()
        .map(|(name, value)| (name.to_string(), value.into()))
        .collect();
    move |name| variables.get(name).cloned()
}

/// What is said about a file with this text, without the file's name.
fn complaint(text: &str) -> String {
    let file = file(text);
    let message = Config::load(Some(file.path()), &|_| None)
        .unwrap_err()
        .to_string();
    let prefix = format!("{}: ", file.path().display());
    message
        .strip_prefix(&prefix)
        .unwrap_or_else(|| panic!("{message}"))
        .to_owned()
}

#[test]
fn policy_is_set_by_files_alone() {
    let node = "[policy]\nprivileges = \"node\"\n";
    let privileges = |text, variables: &[_]| load(text, variables).unwrap().policy.privileges;
    assert_eq!(
        privileges("", &[("REAPER_POLICY_PRIVILEGES", "node")]),
        Privileges::Spec
    );
    assert_eq!(
        privileges(node, &[("REAPER_POLICY_PRIVILEGES", "spec")]),
        Privileges::Node
    );
    assert_eq!(
        complaint("[policy]\nprivileges = \"all\"\n"),
        "policy.privileges: expected spec or node, found \"all\""
    );
    let devices = |text, variables: &[_]| load(text, variables).unwrap().devices;
    assert_eq!(devices("", &[("REAPER_DEVICES", "node")]), DeviceMode::Spec);
    let node = "devices = \"node\"\n";
    assert_eq!(
        devices(node, &[("REAPER_DEVICES", "spec")]),
        DeviceMode::Node
    );
    assert_eq!(
        complaint("devices = \"all\"\n"),
        "devices: expected spec or node, found \"all\""
    );
}

const EVERYTHING: &str = r#"
state_root = "/srv/state"
store = "sqlite"
runtime_path = "/usr/bin/runc"
dns = "host"
network = "host"
cgroups = false
image = "beneath"

[overlay]
enabled = false
base = "/srv/overlay"
scope = "group:build"
size = "512MiB"
size_per_scope = "64MiB"
host_paths = ["/var/lib/db.sock", "/srv/a,b"]
unprotected = ["/mnt/odd"]
remove_with_last = true

[overlay.keep]
age = "7d"
count = 20

[overlay.masks]
replace = ["/etc/shadow"]
add = ["/opt/secret*", "/a,b"]
except = []

[log]
shim = "/var/log/shim.log"
runtime = "/var/log/runtime.log"
level = "reaper_shim=debug"

[annotations]
allow = ["overlay-scope", "image"]
"#;

#[test]
fn hooks_that_are_off_are_taken_out_with_a_line_for_the_log() {
    let hooks = r#"{"process": {"args": ["true"]}, "hooks": {"poststop": [{"path": "/x"}]}}"#;
    let bundle = || ContainerSpec::parse(hooks.as_bytes(), Path::new("/b")).unwrap();
    for (config, runs) in [
        (load("", &[]), true),
        (load("hooks = \"spec\"\n", &[]), true),
        (load("hooks = \"off\"\n", &[]), false),
        (load("", &[("REAPER_HOOKS", "off")]), false),
    ] {
        let mut spec = bundle();
        let line = config.unwrap().hooks.apply(&mut spec);
        assert_eq!((spec.hooks.is_empty(), line.is_some()), (!runs, !runs));
        assert!(line.is_none_or(|line| line.contains("hooks is \"off\"")));
    }
    let error = load("hooks = \"on\"\n", &[]).unwrap_err().to_string();
    assert!(error.contains("hooks: expected spec or off"), "{error}");
    // Nothing is said of what was not asked for.
    let mut none = ContainerSpec::parse(br#"{"process": {"args": ["true"]}}"#, Path::new("/b"));
    assert_eq!(HookMode::Off.apply(none.as_mut().unwrap()), None);
}

#[test]
fn a_runtime_is_not_said_to_do_what_the_admin_decides() {
    let json = br#"{
        "process": {"args": ["true"], "capabilities": {}},
        "hooks": {"poststop": [{"path": "/x"}]},
        "linux": {
            "resources": {"devices": [{"allow": false}]},
            "namespaces": [{"type": "network", "path": "/n"}]
        }
    }"#;
    let settings = "hooks = \"off\"\ndevices = \"node\"\nnetwork = \"host\"\n";
    let policy = "[policy]\nprivileges = \"node\"\n";
    let said = |runtime: &str| {
        let config = load(&format!("{runtime}{settings}{policy}"), &[]).unwrap();
        let mut spec = ContainerSpec::parse(json, Path::new("/b")).unwrap();
        config.apply_to_container(&mut spec).unwrap()
    };
    let here = said("");
    assert_eq!(here.len(), 3, "{here:?}");
    assert!(here.iter().all(|line| line.contains("not ")), "{here:?}");
    let by_runtime: Vec<_> = [
        "policy.privileges = \"node\"",
        "devices = \"node\"",
        "hooks = \"off\"",
        "network = \"host\"",
    ]
    .map(|setting| format!("{setting} has no effect: runc does as the spec says (runtime_path)"))
    .into();
    assert_eq!(said("runtime_path = \"runc\"\n"), by_runtime);
    // The rules hold all the same.
    let config = load("runtime_path = \"runc\"\n[policy]\nusers = [\"1\"]\n", &[]).unwrap();
    let mut spec = ContainerSpec::parse(json, Path::new("/b")).unwrap();
    let refused = config.apply_to_container(&mut spec).unwrap_err();
    assert!(refused.to_string().contains("uid 0"), "{refused}");
}

#[test]
fn cgroups_are_words_and_still_true_or_false() {
    for (value, mode) in [
        ("\"enforce\"", CgroupMode::Enforce),
        ("\"track\"", CgroupMode::Track),
        ("\"off\"", CgroupMode::Off),
        ("true", CgroupMode::Enforce),
        ("false", CgroupMode::Off),
    ] {
        let file = format!("cgroups = {value}\n");
        assert_eq!(load(&file, &[]).unwrap().cgroups, mode, "{value}");
        let variable = value.trim_matches('"');
        let config = load("", &[("REAPER_CGROUPS", variable)]).unwrap();
        assert_eq!(config.cgroups, mode, "{variable}");
    }
    let error = load("cgroups = \"limit\"\n", &[]).unwrap_err();
    assert!(
        error.to_string().contains("enforce, track or off"),
        "{error}"
    );
}

#[test]
fn monitors_are_charged_to_node_unless_the_admin_says_pod() {
    let mode = |file, variables: &[(&'static str, &'static str)]| {
        load(file, variables).map(|config| config.monitor_cgroup)
    };
    let pod = "monitor_cgroup = \"pod\"\n";
    let (node, variable) = (MonitorCgroupMode::Node, "REAPER_MONITOR_CGROUP");
    assert_eq!(mode("", &[]).unwrap(), node);
    assert_eq!(mode(pod, &[]).unwrap(), MonitorCgroupMode::Pod);
    assert_eq!(mode(pod, &[(variable, "node")]).unwrap(), node);
    // The options of a handler in containerd's configuration.
    let mut config = load("", &[]).unwrap();
    config.apply_options(pod).unwrap();
    assert_eq!(config.monitor_cgroup.as_str(), "pod");
    let error = mode("", &[(variable, "leaf")]).unwrap_err().to_string();
    assert!(error.contains("expected node or pod"), "{error}");
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = load("", &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.state_root, Path::new("/run/reaper"));
    assert_eq!(config.overlay.base, Path::new("/run/reaper/overlay"));
    assert!(config.overlay.enabled && config.cgroups == CgroupMode::Enforce);
    assert_eq!(config.overlay.scope, OverlayScope::Node);
}

#[test]
fn configuration_file_sets_every_key() {
    let config = load(EVERYTHING, &[]).unwrap();
    assert_eq!(config.store, StoreKind::Sqlite);
    assert_eq!(
        config.runtime_path.as_deref(),
        Some(Path::new("/usr/bin/runc"))
    );
    assert_eq!(
        (config.dns, config.image),
        (DnsMode::Host, ImageMode::Lower)
    );
    assert_eq!(config.cgroups, CgroupMode::Off);
    let OverlayConfig {
        enabled,
        base,
        scope,
        size,
        size_per_scope,
        masks,
        host_paths,
        unprotected,
        remove_with_last,
        keep,
    } = config.overlay.clone();
    assert!(!enabled);
    assert_eq!(base, Path::new("/srv/overlay"));
    assert_eq!(scope, OverlayScope::Group("build".into()));
    assert_eq!(size, Some(512 << 20));
    assert_eq!(size_per_scope, Some(64 << 20));
    assert_eq!(masks.replace, Some(vec!["/etc/shadow".to_owned()]));
    assert_eq!(masks.add, ["/opt/secret*", "/a,b"]);
    assert_eq!(
        host_paths,
        [Path::new("/var/lib/db.sock"), Path::new("/srv/a,b")]
    );
    assert_eq!(unprotected, [Path::new("/mnt/odd")]);
    assert!(remove_with_last);
    let week = Duration::from_secs(7 * 24 * 3600);
    let expected = RetentionConfig {
        max_age: Some(week),
        max_count: Some(20),
    };
    assert_eq!(keep, expected);
    assert_eq!(config.log.level.as_deref(), Some("reaper_shim=debug"));
    assert_eq!(config.annotations.allow, ["overlay-scope", "image"]);

    let copy: Config = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
    assert_eq!(
        copy, config,
        "a configuration can be handed to another process"
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let variables = [
        ("REAPER_RUNTIME_ROOT", "/env/state"),
        ("REAPER_RUNTIME_PATH", "crun"),
        ("REAPER_RUNTIME_LOG", "/env/runtime.log"),
        ("REAPER_SHIM_LOG", "/env/shim.log"),
        ("REAPER_OVERLAY_ENABLED", "1"),
        ("REAPER_OVERLAY_BASE", "/env/overlay"),
        ("REAPER_OVERLAY_SCOPE", "pod"),
        ("REAPER_OVERLAY_SIZE", "1048576"),
        ("REAPER_OVERLAY_SIZE_PER_SCOPE", "64KiB"),
        ("REAPER_OVERLAY_MASKS_ADD", "/a, /b,"),
        ("REAPER_OVERLAY_HOST_PATHS", "/a, /b,"),
        ("REAPER_OVERLAY_UNPROTECTED", "/c"),
        ("REAPER_OVERLAY_REMOVE_WITH_LAST", "no"),
        ("REAPER_OVERLAY_KEEP_AGE", "1h 30m"),
        ("REAPER_OVERLAY_KEEP_COUNT", "0"),
        ("REAPER_ANNOTATIONS_ALLOW", "dns-mode"),
        ("REAPER_CGROUPS", ""),
    ];
    let config = load(EVERYTHING, &variables).unwrap();
    assert_eq!(config.state_root, Path::new("/env/state"));
    assert_eq!(config.runtime_path.as_deref(), Some(Path::new("crun")));
    assert_eq!(
        config.log.runtime.as_deref(),
        Some(Path::new("/env/runtime.log"))
    );
    assert_eq!(config.log.shim.as_deref(), Some(Path::new("/env/shim.log")));
    assert!(config.overlay.enabled);
    assert_eq!(config.overlay.base, Path::new("/env/overlay"));
    assert_eq!(config.overlay.scope, OverlayScope::Pod);
    assert_eq!(config.overlay.size, Some(1 << 20));
    assert_eq!(config.overlay.size_per_scope, Some(64 << 10));
    assert_eq!(config.overlay.masks.add, ["/a", "/b"]);
    assert_eq!(
        config.overlay.host_paths,
        [Path::new("/a"), Path::new("/b")]
    );
    assert_eq!(config.overlay.unprotected, [Path::new("/c")]);
    assert!(!config.overlay.remove_with_last);
    let keep = config.overlay.keep;
    let age = Some(Duration::from_secs(90 * 60));
    assert_eq!((keep.max_age, keep.max_count), (age, Some(0)));
    assert_eq!(config.annotations.allow, ["dns-mode"]);
    assert_eq!(
        config.cgroups,
        CgroupMode::Off,
        "an empty variable counts as unset"
    );
}

#[test]
fn environment_booleans_accept_common_spellings() {
    for (value, expected) in [
        ("true", true),
        ("1", true),
        ("Yes", true),
        ("ON", true),
        ("false", false),
        ("0", false),
    ]
    .into_iter()
    .chain([("no", false), ("Off", false)])
    {
        let config = load("", &[("REAPER_OVERLAY_ENABLED", value)]).unwrap();
        assert_eq!(config.overlay.enabled, expected, "{value}");
    }
    let error = load("", &[("REAPER_OVERLAY_ENABLED", "maybe")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment: REAPER_OVERLAY_ENABLED: expected true or false, found \"maybe\""
    );
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in [
        ("1", 1),
        ("7B", 7),
        ("2KiB", 2 << 10),
        ("512Mi", 512 << 20),
        ("1 GiB", 1 << 30),
        ("3TiB", 3 << 40),
        ("5kB", 5_000),
        ("5M", 5_000_000),
    ] {
        let config = load("", &[("REAPER_OVERLAY_SIZE", text)]).unwrap();
        assert_eq!(config.overlay.size, Some(bytes), "{text}");
    }
    for text in ["0", "-1", "1.5GiB", "GiB", "1XiB", "99999999TiB", "ten"] {
        assert!(
            load("", &[("REAPER_OVERLAY_SIZE", text)]).is_err(),
            "{text}"
        );
    }
    assert_eq!(
        load("overlay.size = 4096", &[]).unwrap().overlay.size,
        Some(4096)
    );
    assert!(load("overlay.size = 0", &[]).is_err());
}

#[test]
fn configuration_errors_name_key_and_expected_value() {
    for (text, expected) in [
        (
            "overlay.enabled = \"no\"",
            "overlay.enabled: expected true or false, found \"no\"",
        ),
        (
            "state_root = \"run\"",
            "state_root: expected an absolute path, found \"run\"",
        ),
        (
            "store = 3",
            "store: expected file or sqlite, found the number 3",
        ),
        (
            "[overlay]\nscope = \"group:../x\"",
            "overlay.scope: expected node, namespace, pod, container or group:NAME, found \
             \"group:../x\"",
        ),
        (
            "overlay.keep.age = 7",
            "overlay.keep.age: expected a time such as \"7d\" or \"12h 30m\", found the number 7",
        ),
        (
            "overlay.keep.count = -1",
            "overlay.keep.count: expected a number, 0 or more, found the number -1",
        ),
        (
            "overlay.host_paths = [\"/a\", \"b\"]",
            "overlay.host_paths: expected a list of absolute paths, found [\"/a\", \"b\"]",
        ),
        ("overlay = true", "overlay: expected a table, found boolean"),
        (
            "[annotations]\nallow = [\"overlay_scope\"]",
            "annotations.allow: expected a list of overlay-scope, overlay-name, dns-mode, network \
             and image, found [\"overlay_scope\"]",
        ),
        (
            "overlay.enabld = true",
            "overlay.enabld: unknown key, did you mean overlay.enabled?",
        ),
        (
            "scope = \"pod\"",
            "scope: unknown key, did you mean overlay.scope?",
        ),
        (
            "[overlai]\nbase = \"/x\"",
            "overlai: unknown key, did you mean overlay?",
        ),
        ("frobnicate = 1", "frobnicate: unknown key"),
    ] {
        assert_eq!(complaint(text), expected, "{text}");
    }
    let message = complaint("dns = \"pod\"\nstore = \n");
    assert!(message.starts_with("not valid TOML: line 2: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let error = Config::load(Some(&missing), &|_| None).unwrap_err();
    assert!(
        matches!(&error, Error::Read { path, .. } if *path == missing),
        "{error}"
    );

    let named = env(&[("REAPER_CONFIG", missing.to_str().unwrap())]);
    assert!(matches!(
        Config::load(None, &named),
        Err(Error::Read { .. })
    ));

    let file = file("image = \"at\"");
    let named = env(&[("REAPER_CONFIG", file.path().to_str().unwrap())]);
    assert_eq!(
        Config::load(None, &named).unwrap().image,
        ImageMode::MountAt
    );
}

#[test]
fn the_nodes_policy_holds_whatever_file_is_named() {
    let load = |node: &str, other: &str| {
        let (node, other) = (file(node), file(other));
        let named = env(&[("REAPER_CONFIG", other.path().to_str().unwrap())]);
        let load = |file, env: &dyn Fn(&str) -> Option<OsString>| {
            Config::load_with_base(Config::default(), node.path(), file, env)
        };
        let (by_flag, by_env) = (load(Some(other.path()), &|_| None), load(None, &named));
        let said = |result: &Result<Config, Error>| match result {
            Ok(config) => Ok(config.policy.privileges),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(said(&by_flag), said(&by_env));
        by_flag.map_err(|error| {
            let message = error.to_string();
            let message = message.replace(&node.path().display().to_string(), "NODE");
            message.replace(&other.path().display().to_string(), "OTHER")
        })
    };
    let (node, spec) = (
        "[policy]\nprivileges = \"node\"\n",
        "[policy]\nprivileges = \"spec\"\n",
    );
    let privileges = |own, other| load(own, other).unwrap().policy.privileges;
    assert_eq!(privileges(node, ""), Privileges::Node);
    assert_eq!(privileges(node, node), Privileges::Node);
    assert_eq!(privileges("", node), Privileges::Node);
    assert_eq!(privileges(node, spec), Privileges::Spec, "it is narrower");
    assert_eq!(
        load(spec, node).unwrap_err(),
        "OTHER: policy.privileges: expected \"spec\", as NODE says for the node, found \"node\""
    );

    // Nothing else of the node's file has a meaning then, unless its policy cannot be known.
    let config = load("dns = \"host\"\nof_later = 1\n[policy]\n", "image = \"at\"").unwrap();
    assert_eq!(
        (config.dns, config.image),
        (DnsMode::Spec, ImageMode::MountAt)
    );
    for (own, expected) in [
        (
            "policy = 1",
            "NODE: policy: expected a table, found integer",
        ),
        (
            "[policy]\nprivileges = \"all\"",
            "NODE: policy.privileges: expected spec or node, found \"all\"",
        ),
        (
            "[policy]\nprivilege = \"node\"",
            "NODE: policy.privilege: unknown key, did you mean policy.privileges?",
        ),
    ] {
        assert_eq!(load(own, "").unwrap_err(), expected);
    }
    assert!(
        load("[policy", "")
            .unwrap_err()
            .starts_with("NODE: not valid TOML")
    );
}

#[test]
fn containerd_options_apply_completely_or_not_at_all() {
    let mut config = Config::default();
    config
        .apply_options(
            "TypeUrl = \"runtimeoptions.v1.Options\"\ndns = \"pod\"\n[overlay]\nscope = \"pod\"",
        )
        .unwrap();
    assert_eq!(
        (config.dns, &config.overlay.scope),
        (DnsMode::Spec, &OverlayScope::Pod)
    );

    let before = config.clone();
    let error = config
        .apply_options("dns = \"host\"\nstore = \"tape\"")
        .unwrap_err();
    assert_eq!(config, before);
    assert_eq!(
        error.to_string(),
        "runtime options in containerd's configuration: store: expected file or sqlite, found \
         \"tape\""
    );
}

/// What becomes of a node's configuration with these annotations on a pod.
fn annotate(node: &str, allow: &[&str], pod: &[(&str, &str)]) -> Result<Config, Error> {
    let mut config = Config::default();
    config.overlay.scope = node.parse().unwrap();
    config.annotations.allow = allow.iter().map(ToString::to_string).collect();
    let pod = pod
        .iter()
        .map(|(key, value)| (format!("{}{key}", PodAnnotation::PREFIX), value.to_string()))
        .chain([("io.kubernetes.cri.sandbox-id".to_owned(), "x".to_owned())])
        .collect();
    config.apply_annotations(&pod).map(|()| config)
}

#[test]
fn a_pod_changes_what_the_admin_allows() {
    let pod = [
        ("dns-mode", "pod"),
        ("image", "at"),
        ("network", "host"),
        ("overlay-scope", "pod"),
    ];
    let allow = ["dns-mode", "image", "network", "overlay-scope"];
    let config = annotate("node", &allow, &pod).unwrap();
    assert_eq!(
        (config.dns, config.image),
        (DnsMode::Spec, ImageMode::MountAt)
    );
    assert_eq!(config.overlay.scope, OverlayScope::Pod);
    assert_eq!(
        annotate("node", &[], &[]).unwrap().overlay.scope,
        OverlayScope::Node
    );
}

#[test]
fn annotation_not_allowed_by_admin_is_refused_with_remedy() {
    let error = annotate("node", &["image"], &[("dns-mode", "pod")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the annotation reaper.runtime/dns-mode is not allowed on this node: list \"dns-mode\" \
         under annotations.allow in the node's configuration, or remove it from the pod"
    );
    let error = annotate("node", &["overlay-scope"], &[("overlay-scope", "group:a")]).unwrap_err();
    assert!(
        matches!(&error, Error::AnnotationNotAllowed { key, .. } if key == "overlay-name"),
        "{error}"
    );
    let error = annotate("node", &["overlay-scope"], &[("overlay-scop", "pod")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "annotations: reaper.runtime/overlay-scop: unknown key, did you mean \
         reaper.runtime/overlay-scope?"
    );
    let error = annotate("node", &["image"], &[("image", "inside")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "annotations: reaper.runtime/image: expected ignore, beneath or at, found \"inside\""
    );
}

#[test]
fn a_pod_may_ask_for_more_isolation_only() {
    let order = ["node", "group:a", "namespace", "pod", "container"];
    let allow = ["overlay-scope", "overlay-name"];
    for (rank, node) in order.iter().enumerate() {
        for (asked, scope) in order.iter().enumerate() {
            let result = annotate(node, &allow, &[("overlay-scope", scope)]);
            match result {
                Ok(config) => assert!(
                    asked >= rank && config.overlay.scope.to_string() == *scope,
                    "{scope} on {node}"
                ),
                Err(Error::LessIsolation { .. }) => assert!(asked < rank, "{scope} on {node}"),
                Err(error) => panic!("{scope} on {node}: {error}"),
            }
        }
    }
    let other = annotate("group:a", &allow, &[("overlay-scope", "group:b")]);
    assert!(
        matches!(other, Err(Error::LessIsolation { .. })),
        "another group is not more"
    );
}

#[test]
fn group_scope_is_named_by_one_or_both_annotations() {
    let allow = ["overlay-scope", "overlay-name"];
    let group = OverlayScope::Group("build".into());
    for pod in [
        &[("overlay-name", "build")][..],
        &[("overlay-scope", "group:build")],
        &[("overlay-scope", "group"), ("overlay-name", "build")],
        &[("overlay-scope", "group:build"), ("overlay-name", "build")],
    ] {
        assert_eq!(
            annotate("node", &allow, pod).unwrap().overlay.scope,
            group,
            "{pod:?}"
        );
    }
    for pod in [
        &[("overlay-scope", "group")][..],
        &[("overlay-scope", "pod"), ("overlay-name", "build")],
        &[("overlay-scope", "group:other"), ("overlay-name", "build")],
        &[("overlay-name", "../etc")],
        &[("overlay-name", "")],
    ] {
        assert!(
            matches!(annotate("node", &allow, pod), Err(Error::Invalid { .. })),
            "{pod:?}"
        );
    }
}

#[test]
fn every_setting_is_documented_with_its_variable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let documented = fs::read_to_string(path).unwrap();
    let rows: BTreeSet<(&str, &str)> = documented
        .lines()
        .filter_map(|line| {
            let mut cells = line
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .skip(1);
            Some((cells.next()?, cells.next()?))
        })
        .filter(|(_, variable)| variable.starts_with("REAPER_"))
        .collect();
    assert_eq!(
        rows,
        Config::keys()
            .filter_map(|(key, variable)| Some((key, variable?)))
            .collect(),
        "docs/configuration.md and the settings differ"
    );
    for annotation in PodAnnotation::ALL {
        let row = format!("| `{}` |", annotation.key());
        assert!(documented.contains(&row), "{row} is missing");
    }
}
