//! What a policy allows, and what is said of what it does not.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use reaper_spec::{
    Bundle, Capabilities, Config, ContainerSpec, CriAnnotations, Error, OverlayScope, PolicyConfig,
    Privileges, ProcessSpec,
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Node(TempDir);

impl Node {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// The policy of a file with this text, which is named in messages as FILE.
    fn load(&self, text: &str) -> Result<Config, String> {
        let file = self.path("config.toml");
        fs::write(&file, text).unwrap();
        let none = |_: &str| -> Option<OsString> { None };
        let loaded = Config::load_with_base(Config::default(), &file, None, &none);
        loaded.map_err(|error| self.words(&error))
    }

    fn policy(&self, rules: &str) -> PolicyConfig {
        let text = format!("dns = \"host\"\n\n[policy]\n{rules}\n");
        self.load(&text).unwrap().policy
    }

    fn words(&self, error: &Error) -> String {
        let file = self.path("config.toml").display().to_string();
        let text = error.to_string().replace(&file, "FILE");
        text.replace(&self.0.path().display().to_string(), "DIR")
    }

    /// What a container is refused with, if it is.
    fn refused(&self, rules: &str, change: &Value) -> Option<String> {
        let mut container = self.container(change);
        let scope = Some(&OverlayScope::Pod);
        let applied = self.policy(rules).apply_to_container(&mut container, scope);
        applied.err().map(|error| self.words(&error))
    }

    /// A container as engines write it, with changes.
    fn container(&self, change: &Value) -> ContainerSpec {
        let mut document = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["/usr/bin/id", "-u"],
                "cwd": "/",
                "user": { "uid": 1000, "gid": 1000, "additionalGids": [2000] },
                "capabilities": { "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"] },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 1000 }],
            },
            "root": { "path": "rootfs" },
            "linux": { "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"] },
            "annotations": { "io.kubernetes.cri.sandbox-namespace": "tools" },
        });
        merge(&mut document, change);
        let bundle = self.path("bundle");
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), document.to_string()).unwrap();
        Bundle::load(&bundle).unwrap().into_container_spec()
    }
}

fn merge(document: &mut Value, change: &Value) {
    match (document, change) {
        (Value::Object(document), Value::Object(change)) => {
            for (key, value) in change {
                merge(document.entry(key).or_insert(Value::Null), value);
            }
        }
        (document, change) => *document = change.clone(),
    }
}

/// What each rule allows, and what it refuses with which words. `FILE` has the rule in line 4.
#[test]
fn each_rule_refuses_what_it_does_not_allow_with_its_line() {
    let node = Node::new();
    let user = |uid: u32, gid: u32| json!({ "process": { "user": { "uid": uid, "gid": gid } } });
    let args = |command: &str| json!({ "process": { "args": [command] } });
    let bounding = |names: Value| {
        let sets = json!({ "bounding": names, "effective": [] });
        json!({ "process": { "capabilities": sets } })
    };
    let hard = |hard: u64| {
        json!({ "process": { "rlimits": [
        { "type": "RLIMIT_NOFILE", "soft": 1, "hard": hard } ] } })
    };
    let namespace =
        |name: Value| json!({ "annotations": { "io.kubernetes.cri.sandbox-namespace": name } });
    let privileged = json!({
        "process": { "capabilities": { "bounding": ["CAP_SYS_ADMIN"] } },
        "linux": { "maskedPaths": null, "readonlyPaths": null },
    });
    let admin = bounding(json!(["CAP_SYS_ADMIN"]));
    let bare = json!({ "process": { "capabilities": null } });
    for (rule, allowed, refused, words) in [
        ("users = [1000]", user(1000, 0), user(0, 0), "uid 0"),
        (
            "users = [\"1-999\", 1001]",
            user(1001, 5),
            user(1000, 5),
            "uid 1000",
        ),
        ("groups = [\"5-6\", 2000]", user(0, 6), user(0, 7), "gid 7"),
        (
            "groups = [1000]",
            json!({ "process": { "user": { "additionalGids": [] } } }),
            json!({}),
            "gid 2000",
        ),
        (
            "commands = [\"/usr/bin/*\"]",
            args("/usr/bin/./env"),
            args("/usr/bin/x/y"),
            "\"/usr/bin/x/y\"",
        ),
        (
            "commands = [\"/usr/bin/*\"]",
            args("/usr/bin/id"),
            args("/usr/bin/../sbin/x"),
            "\"/usr/bin/../sbin/x\"",
        ),
        (
            "commands = [\"/usr/bin/id\"]",
            args("/usr/bin/id"),
            args("id"),
            "\"id\", which is not an absolute path",
        ),
        (
            "namespaces = [\"a\", \"b\"]",
            namespace(json!("b")),
            namespace(json!("c")),
            "pods of the namespace \"c\"",
        ),
        (
            "capabilities = [\"CAP_CHOWN\"]",
            json!({}),
            admin.clone(),
            "CAP_SYS_ADMIN",
        ),
        (
            "capabilities = []",
            bounding(json!([])),
            json!({}),
            "CAP_CHOWN",
        ),
        (
            "capabilities = []",
            bounding(json!([])),
            bare,
            "a process whose spec names no capabilities, and which so has all",
        ),
        (
            "privileged = false",
            admin,
            privileged,
            "a privileged container",
        ),
        (
            "rlimits = [\"RLIMIT_NOFILE=1000\"]",
            hard(1000),
            hard(1001),
            "RLIMIT_NOFILE of 1001",
        ),
    ] {
        assert_eq!(node.refused(rule, &allowed), None, "{rule} with {allowed}");
        let key = rule.split(' ').next().unwrap();
        let expected = format!("policy.{key} (FILE, line 4) does not allow {words}");
        assert_eq!(node.refused(rule, &refused), Some(expected));
        assert_eq!(node.refused("", &refused), None, "no rule");
    }
}

#[test]
fn container_of_no_namespace_is_refused_where_namespaces_are_named() {
    let node = Node::new();
    let policy = node.policy("namespaces = [\"tools\"]");
    let mut container = node.container(&json!({}));
    container.annotations.clear();
    let refused = policy.apply_to_container(&mut container, None).unwrap_err();
    let expected =
        "policy.namespaces (FILE, line 4) does not allow a container of no Kubernetes namespace";
    assert_eq!(node.words(&refused), expected);

    let of = |name: &str| {
        let key = "io.kubernetes.cri.sandbox-namespace".to_owned();
        let annotations = BTreeMap::from([(key, name.to_owned())]);
        policy.check_sandbox(&CriAnnotations::from_annotations(&annotations))
    };
    assert!(of("tools").is_ok());
    assert!(matches!(of("other"), Err(Error::Policy { .. })));
}

#[test]
fn overlay_scope_has_to_be_one_that_is_named() {
    let node = Node::new();
    let try_scope = |rules: &str, scope: Option<OverlayScope>| {
        let mut container = node.container(&json!({}));
        let applied = node
            .policy(rules)
            .apply_to_container(&mut container, scope.as_ref());
        applied.map(drop).map_err(|error| node.words(&error))
    };
    let group = |name: &str| Some(OverlayScope::group(name).unwrap());
    let rules = "scopes = [\"pod\", \"group:web\"]";
    assert_eq!(try_scope(rules, Some(OverlayScope::Pod)), Ok(()));
    assert_eq!(try_scope(rules, group("web")), Ok(()));
    assert_eq!(try_scope("scopes = [\"group:*\"]", group("db")), Ok(()));
    for (scope, words) in [
        (Some(OverlayScope::Node), "the overlay scope node"),
        (group("db"), "the overlay scope group:db"),
        (None, "a container without an overlay"),
    ] {
        let expected = format!("policy.scopes (FILE, line 4) does not allow {words}");
        assert_eq!(try_scope(rules, scope), Err(expected));
    }
}

#[test]
fn mount_has_to_lie_below_a_host_path_wherever_its_links_lead() {
    let node = Node::new();
    for dir in ["data/inner", "secret"] {
        fs::create_dir_all(node.path(dir)).unwrap();
    }
    std::os::unix::fs::symlink(node.path("secret"), node.path("data/link")).unwrap();
    let data = node.path("data").display().to_string();
    let rules = format!("host_paths = [\"{data}:ro\", \"{data}/inner\"]");
    let mount = |source: &str, options: &[&str]| {
        let mount = json!({
            "destination": "/mnt", "type": "bind", "source": node.path(source), "options": options,
        });
        node.refused(&rules, &json!({ "mounts": [mount] }))
    };
    assert_eq!(mount("data", &["bind", "ro"]), None);
    assert_eq!(mount("data", &["rbind", "rro"]), None);
    assert_eq!(mount("data/inner", &["rbind", "rw"]), None);
    let expected = |words: &str| {
        Some(format!(
            "policy.host_paths (FILE, line 4) does not allow {words}"
        ))
    };
    assert_eq!(
        mount("data", &["bind"]),
        expected("a writable mount of DIR/data")
    );
    assert_eq!(
        mount("data", &["rbind", "ro"]),
        expected("a writable mount of DIR/data"),
        "what is mounted below stays writable"
    );
    for (source, leads) in [
        ("secret", ""),
        ("data/link", ", which is DIR/secret"),
        ("data/../secret", ", which is DIR/secret"),
        ("data-other", ""),
        ("data/../other", ""),
    ] {
        assert_eq!(
            mount(source, &["bind", "ro"]),
            expected(&format!("a mount of DIR/{source}{leads}"))
        );
    }
    // What is no file of the host is not concerned.
    let tmpfs = json!([{ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" }]);
    assert_eq!(node.refused(&rules, &json!({ "mounts": tmpfs })), None);
}

/// All spellings that are mounted as the same thing are judged as the same.
#[test]
fn mount_of_a_host_path_is_refused_however_it_is_written() {
    let node = Node::new();
    for dir in ["data", "secret"] {
        fs::create_dir_all(node.path(dir)).unwrap();
    }
    let data = node.path("data").display().to_string();
    let mount = |kind: Option<&str>, source: &str, options: &[&str]| {
        let mount = json!({
            "destination": "/mnt", "type": kind, "source": node.path(source), "options": options,
        });
        let rules = format!("host_paths = [\"{data}:ro\"]");
        node.refused(&rules, &json!({ "mounts": [mount] }))
    };
    let expected = |words: &str| {
        Some(format!(
            "policy.host_paths (FILE, line 4) does not allow {words}"
        ))
    };
    for kind in [None, Some(""), Some("bind"), Some("none"), Some("rbind")] {
        assert_eq!(
            mount(kind, "secret", &["ro"]),
            expected("a mount of DIR/secret"),
            "{kind:?}"
        );
        assert_eq!(mount(kind, "data", &["rro"]), None, "{kind:?}");
    }
    let writable = expected("a writable mount of DIR/data");
    for options in [["ro", "rw"], ["rro", "rrw"], ["ro", "rrw"], ["rro", "rw"]] {
        assert_eq!(
            mount(Some("bind"), "data", &options),
            writable,
            "{options:?}"
        );
    }
    assert_eq!(mount(Some("bind"), "data", &["rw", "ro"]), None);
    assert_eq!(
        mount(Some("rbind"), "data", &["ro"]),
        writable,
        "what is mounted below stays writable"
    );
    // What they show is named by an option, or is a disk.
    for (kind, options) in [
        ("overlay", vec!["lowerdir=/etc:/usr"]),
        ("ext4", vec!["ro"]),
    ] {
        assert_eq!(
            mount(Some(kind), "secret", &options),
            expected(&format!("a mount of the filesystem {kind}"))
        );
    }
}

/// Where the node's file is a link that leads nowhere, its rules are not known.
#[test]
fn file_whose_link_leads_nowhere_refuses_instead_of_allowing_all() {
    let node = Node::new();
    let none = |_: &str| -> Option<OsString> { None };
    let load = |file: &Path, named: Option<&Path>| {
        let loaded = Config::load_with_base(Config::default(), file, named, &none);
        loaded.map(drop).map_err(|error| node.words(&error))
    };
    let named = node.path("named.toml");
    fs::write(&named, "").unwrap();
    std::os::unix::fs::symlink("gone", node.path("link.toml")).unwrap();
    std::os::unix::fs::symlink("gone", node.path("folder")).unwrap();
    for file in ["link.toml", "folder/config.toml"] {
        let file = node.path(file);
        assert!(load(&file, None).is_err(), "{}", file.display());
        assert!(load(&file, Some(&named)).is_err(), "{}", file.display());
        assert!(Config::sources(&file, None, &none).is_err());
    }
    for file in ["missing.toml", "no/folder/config.toml"] {
        assert_eq!(load(&node.path(file), None), Ok(()));
        assert_eq!(load(&node.path(file), Some(&named)), Ok(()));
    }
}

#[test]
fn exec_has_to_keep_the_rules_about_processes() {
    let node = Node::new();
    let policy = node.policy("users = [1000]\ncapabilities = [\"CAP_CHOWN\"]");
    let process = |uid: u32| {
        let mut process = ProcessSpec::new(vec!["id".to_owned()], "/").unwrap();
        process.user = node
            .container(&json!({ "process": { "user": { "uid": uid } } }))
            .process
            .user;
        process.capabilities = Some(Capabilities::default());
        process
    };
    assert!(policy.apply_to_exec(&mut process(1000)).is_ok());
    let refused = policy.apply_to_exec(&mut process(1001)).unwrap_err();
    assert_eq!(
        node.words(&refused),
        "policy.users (FILE, line 4) does not allow uid 1001"
    );
    let mut without = process(1000);
    without.capabilities = None;
    assert!(policy.apply_to_exec(&mut without).is_err());
}

#[test]
fn process_of_no_spec_gets_the_capabilities_that_every_file_allows() {
    let node = Node::new();
    let mut config = node
        .load("[policy]\ncapabilities = [\"CAP_CHOWN\", \"CAP_KILL\"]")
        .unwrap();
    config
        .apply_options("[policy]\ncapabilities = [\"CAP_KILL\", \"CAP_FOWNER\"]")
        .unwrap();
    let mut process = ProcessSpec::new(vec!["id".to_owned()], "/").unwrap();
    config.policy.limit_capabilities(&mut process);
    let granted = vec!["CAP_KILL".to_owned()];
    let expected = Capabilities {
        bounding: granted.clone(),
        effective: granted.clone(),
        permitted: granted,
        ..Capabilities::default()
    };
    assert_eq!(process.capabilities, Some(expected.clone()));
    assert!(config.policy.apply_to_exec(&mut process).is_ok());
    Config::default().policy.limit_capabilities(&mut process);
    assert_eq!(process.capabilities, Some(expected));
}

/// A handler's own file, or options, can take rights away and give none.
#[test]
fn later_file_only_narrows_what_an_earlier_one_allows() {
    let node = Node::new();
    let users = |config: &Config, uid: u32| {
        let mut container = node.container(&json!({ "process": { "user": { "uid": uid } } }));
        let applied = config.policy.apply_to_container(&mut container, None);
        applied.map(drop).map_err(|error| node.words(&error))
    };
    let mut config = node.load("[policy]\nusers = [1000, 1001]").unwrap();
    config
        .apply_options("[policy]\nusers = [1001, 1002]")
        .unwrap();
    assert_eq!(users(&config, 1001), Ok(()));
    let by =
        |place: &str, uid: u32| Err(format!("policy.users ({place}) does not allow uid {uid}"));
    assert_eq!(users(&config, 1002), by("FILE, line 2", 1002));
    let options = "the runtime's options in containerd's configuration, line 2";
    assert_eq!(users(&config, 1000), by(options, 1000));

    let mut config = node.load("[policy]\nprivileges = \"spec\"").unwrap();
    let before = config.clone();
    let widened = config
        .apply_options("[policy]\nprivileges = \"node\"")
        .unwrap_err();
    let words = node.words(&widened);
    assert!(
        words.contains("expected \"spec\", as FILE says for the node"),
        "{words}"
    );
    assert_eq!(config, before);
    let mut config = node.load("[policy]\nprivileged = false").unwrap();
    let widened = config.apply_options("[policy]\nprivileges = \"node\"");
    let words = node.words(&widened.unwrap_err());
    let limit = "expected \"spec\", as policy.privileged (FILE, line 2) is a limit";
    assert!(words.contains(limit), "{words}");
    let mut config = node.load("[policy]\nprivileges = \"node\"").unwrap();
    config
        .apply_options("[policy]\nprivileges = \"spec\"")
        .unwrap();
    assert_eq!(config.policy.privileges, Privileges::Spec);
}

#[test]
fn wrong_rules_are_named_and_nothing_is_loaded() {
    let node = Node::new();
    for (rule, words) in [
        (
            "users = 1000",
            "policy.users: expected a list, found the number 1000",
        ),
        (
            "users = [\"9-1\"]",
            "policy.users: expected ids such as 0 and \"1000-1999\", found \"9-1\"",
        ),
        (
            "users = [-1]",
            "policy.users: expected ids such as 0 and \"1000-1999\", found the number -1",
        ),
        (
            "commands = [\"id\"]",
            "policy.commands: expected globs that an absolute path can match, without empty parts, . and .., such \
             as \"/usr/bin/*\", found \"id\"",
        ),
        (
            "containers = -1",
            "policy.containers: expected a number, 0 or more, found the number -1",
        ),
        (
            "namespaces = [\"batch\", \"Tools\"]",
            "policy.namespaces: expected names of Kubernetes namespaces, such as \"batch\", found \"Tools\"",
        ),
        (
            "capabilities = [\"CAP_CHOWN\", \"CAP_CHOWM\"]",
            "policy.capabilities: expected capabilities as in capabilities(7), such as \"CAP_NET_ADMIN\", found \
             \"CAP_CHOWM\"",
        ),
        (
            "host_paths = [\"/a/../b\"]",
            "policy.host_paths: expected absolute paths, with :ro behind those that may only be read, found \"/a/../b\"",
        ),
        (
            "capabilities = [\"chown\"]",
            "policy.capabilities: expected capabilities as in capabilities(7), such as \"CAP_NET_ADMIN\", found \
             \"chown\"",
        ),
        (
            "scopes = [\"cluster\"]",
            "policy.scopes: expected overlay scopes: node, namespace, pod, container, group:NAME or group:*, found \"cluster\"",
        ),
        (
            "rlimits = [\"NOFILE=1\"]",
            "policy.rlimits: expected limits such as \"RLIMIT_NOFILE=65536\", found \"NOFILE=1\"",
        ),
        (
            "privileged = \"no\"",
            "policy.privileged: expected true or false, found \"no\"",
        ),
        (
            "user = [1]",
            "policy.user: unknown key, did you mean policy.users?",
        ),
        (
            "privileges = \"node\"\ncapabilities = []",
            "policy.privileges: expected \"spec\", as policy.capabilities (FILE, line 3) is a limit, found \"node\"",
        ),
    ] {
        let refused = node.load(&format!("[policy]\n{rule}\n")).unwrap_err();
        assert_eq!(refused, format!("FILE: {words}"));
    }
}

#[test]
fn value_that_nothing_can_match_is_refused() {
    let node = Node::new();
    for (rule, values) in [
        ("users", &["4294967296", "1000-", "root"][..]),
        ("groups", &["0x10", "2-1"]),
        (
            "commands",
            &[
                "/",
                "/bin/",
                "/usr//bin/*",
                "/usr/./id",
                "/a/../b",
                "/bin/[a",
                "",
            ],
        ),
        ("namespaces", &["", "-a", "a_b", "a.b", "a "]),
        ("host_paths", &["data", "/data:RO", "/data:rw", "/data:rro"]),
        (
            "capabilities",
            &["ALL", "CAP_", "CAP_SYS_ADMIM", "cap_chown"],
        ),
        ("scopes", &["group:", "group:a/b", "Pod"]),
        ("rlimits", &["RLIMIT_FILES=1", "RLIMIT_NOFILE=many"]),
    ] {
        for value in values {
            let refused = node.load(&format!("[policy]\n{rule} = [{value:?}]\n"));
            let error = refused.expect_err(value);
            assert!(
                error.starts_with(&format!("FILE: policy.{rule}: ")),
                "{error}"
            );
            assert!(error.ends_with(&format!("found {value:?}")), "{error}");
        }
    }
    // Whatever the kernel of the runtime specification has.
    for name in ["CAP_CHOWN", "CAP_SYSLOG", "CAP_CHECKPOINT_RESTORE"] {
        node.load(&format!("[policy]\ncapabilities = [\"{name}\"]\n"))
            .unwrap();
    }
    node.load("[policy]\nhost_paths = [\"/dev/disk/by-path/pci-0000:00:1f.2\"]\n")
        .unwrap();
}

#[test]
fn limits_of_all_files_are_kept_with_their_lines() {
    let node = Node::new();
    let mut config = node.load("[policy]\n\ncontainers = 5\n").unwrap();
    config.apply_options("[policy]\ncontainers = 9\n").unwrap();
    let limits = config.policy.container_limits();
    assert_eq!(
        limits.iter().map(|limit| limit.most).collect::<Vec<_>>(),
        [5, 9]
    );
    assert_eq!(
        node.words(&limits[0].refused(5)),
        "policy.containers (FILE, line 3) does not allow another container: 5 have not stopped"
    );
}

/// Monitors get their configuration as JSON.
#[test]
fn policy_survives_being_handed_over() {
    let node = Node::new();
    let policy = node.policy(
        "users = [0, \"5-9\"]\nhost_paths = [\"/data:ro\", \"/\"]\nrlimits = [\"RLIMIT_CORE=0\"]\n\
         scopes = [\"pod\"]\ncommands = [\"/bin/*\"]\nprivileged = false\ncapabilities = [\"CAP_KILL\"]\n\
         namespaces = [\"a\"]\ngroups = [1]\ncontainers = 3",
    );
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<PolicyConfig>(&text).unwrap(), policy);
    assert_eq!(policy.rules[0].source.lines["groups"], 12);
    assert!(Path::new(&policy.rules[0].source.name).is_absolute());
}
